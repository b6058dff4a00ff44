use super::*;
use proptest::prelude::*;

fn image(width: usize, height: usize) -> impl Strategy<Value = Rgb> {
    // Noise, and hard edges, where bicubic and Lanczos overshoot and must clip.
    let noise = proptest::collection::vec(any::<u8>(), width * height * 3);
    let edges = proptest::collection::vec(prop_oneof![Just(0u8), Just(255u8)], width * height * 3);
    prop_oneof![noise, edges].prop_map(move |pixels| Rgb {
        width,
        height,
        pixels,
    })
}

fn any_image() -> impl Strategy<Value = Rgb> {
    (1usize..70, 1usize..70).prop_flat_map(|(width, height)| image(width, height))
}

fn any_interpolation() -> impl Strategy<Value = Interpolation> {
    prop_oneof![
        Just(Interpolation::Box),
        Just(Interpolation::Bilinear),
        Just(Interpolation::Bicubic),
        Just(Interpolation::Lanczos),
    ]
}

fn window(kernel: Kernel, image: &Rgb, target: &Target, interpolation: Interpolation) -> Vec<u8> {
    let mut pixels = Vec::new();
    resample_with(kernel, image, target, interpolation, |row| {
        pixels.extend_from_slice(row)
    });
    pixels
}

proptest! {
    #[test]
    fn the_vector_form_gives_the_bits_of_the_portable_one(
        image in any_image(),
        size in (1usize..90, 1usize..90),
        interpolation in any_interpolation(),
    ) {
        let target = Target { size, columns: 0..size.0, rows: 0..size.1 };
        let expected = window(Kernel::Portable, &image, &target, interpolation);
        let found = window(Kernel::detect(), &image, &target, interpolation);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_window_is_a_part_of_the_whole(
        image in any_image(),
        size in (1usize..90, 1usize..90),
        cut in (0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0),
        interpolation in any_interpolation(),
    ) {
        let range = |length: usize, a: f64, b: f64| {
            let start = (a * length as f64) as usize;
            start..start + 1 + (b * (length - start - 1) as f64) as usize
        };
        let target = Target {
            size,
            columns: range(size.0, cut.0, cut.1),
            rows: range(size.1, cut.2, cut.3),
        };
        let whole = resize(&image, size.0, size.1, interpolation);
        let expected: Vec<u8> = target.rows.clone().flat_map(|row| {
            let start = row * size.0;
            whole.pixels[(start + target.columns.start) * 3..(start + target.columns.end) * 3].to_vec()
        }).collect();
        prop_assert_eq!(window(Kernel::detect(), &image, &target, interpolation), expected);
    }

    #[test]
    fn the_same_size_gives_the_same_pixels(image in any_image(), interpolation in any_interpolation()) {
        prop_assert_eq!(resize(&image, image.width, image.height, interpolation), image);
    }
}

#[test]
fn no_pixels_in_or_out_is_not_a_failure() {
    let one = Rgb {
        width: 1,
        height: 1,
        pixels: vec![1, 2, 3],
    };
    let none = Rgb {
        width: 0,
        height: 0,
        pixels: Vec::new(),
    };
    assert!(resize(&one, 0, 5, Interpolation::Bicubic).pixels.is_empty());
    assert!(resize(&one, 5, 0, Interpolation::Bicubic).pixels.is_empty());
    assert!(
        resize(&none, 5, 5, Interpolation::Bicubic)
            .pixels
            .is_empty()
    );
}
