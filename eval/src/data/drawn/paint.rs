//! From a kind and a number to pixels.

use super::exact::{Random, mix, unit};
use super::kinds::{Kind, noise};

type Colour = [f64; 3];

/// Width and height of the images of a kind: ordinary photographs' shapes, smaller than 224, very wide, very tall.
pub(super) const SIZES: [(u32, u32); 12] = [
    (256, 256),
    (320, 240),
    (240, 320),
    (400, 300),
    (180, 240),
    (224, 224),
    (500, 220),
    (150, 420),
    (333, 251),
    (96, 96),
    (512, 384),
    (275, 183),
];

/// An image: RGB bytes, row by row.
pub(super) struct Picture {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u8>,
}

/// Everything about an image that is drawn by lot.
struct Scene {
    kind: Kind,
    middle: (f64, f64),
    direction: (f64, f64),
    size: f64,
    front: Colour,
    back: Colour,
    /// Where the background shades to, and how mottled it is.
    back_end: Colour,
    mottle: f64,
    /// Grain in steps of 1/255, as a camera's.
    grain: f64,
    seed: u64,
}

/// Draws image `number` (below the count of [`SIZES`]) of a kind.
pub(super) fn paint(kind: Kind, number: usize) -> Picture {
    let (width, height) = SIZES[number % SIZES.len()];
    let scene = Scene::by_lot(kind, number, (f64::from(width), f64::from(height)));
    let mut pixels = Vec::with_capacity(3 * (width * height) as usize);
    for row in 0..height {
        for column in 0..width {
            let (x, y) = (f64::from(column) + 0.5, f64::from(row) + 0.5);
            let colour = scene.colour(x, y, f64::from(width));
            let lot = mix(scene.seed ^ (u64::from(row) << 32 | u64::from(column)));
            let grain = scene.grain * (unit(lot) - 0.5);
            pixels.extend(colour.map(|c| to_byte(c * 255.0 + grain)));
        }
    }
    Picture {
        width,
        height,
        pixels,
    }
}

fn to_byte(value: f64) -> u8 {
    (value + 0.5).floor().clamp(0.0, 255.0) as u8
}

impl Scene {
    fn by_lot(kind: Kind, number: usize, (width, height): (f64, f64)) -> Scene {
        let mut random = Random::new(mix((kind as u64) << 32 | number as u64));
        let short = width.min(height);
        let (size, margin) = if kind.is_figure() {
            let radius = short * random.within(0.22, 0.46);
            (radius, radius)
        } else {
            (short * random.within(0.08, 0.22), 0.3 * short)
        };
        let middle = (
            random.within(margin, width - margin),
            random.within(margin, height - margin),
        );
        let (front, back) = colours(&mut random);
        let shade = random.within(-0.25, 0.25);
        Scene {
            kind,
            middle,
            direction: random.direction(),
            size,
            front,
            back,
            back_end: back.map(|c| (c + shade).clamp(0.0, 1.0)),
            mottle: if number.is_multiple_of(3) { 0.25 } else { 0.0 },
            grain: if number % 4 == 1 { 12.0 } else { 0.0 },
            seed: random.next(),
        }
    }

    fn colour(&self, x: f64, y: f64, width: f64) -> Colour {
        let (dx, dy) = (x - self.middle.0, y - self.middle.1);
        let (cos, sin) = self.direction;
        let (u, v) = (cos * dx + sin * dy, cos * dy - sin * dx);
        let front = self.kind.coverage(u, v, self.size, self.seed);
        let lit = 1.0 - 0.22 * ((dx + dy) / (self.size * 2.0)).clamp(-1.0, 1.0);
        let lit = if self.kind.is_figure() { lit } else { 1.0 };
        let mut back = blend(self.back, self.back_end, x / width);
        if self.mottle > 0.0 {
            let spots = noise(x / 24.0, y / 24.0, !self.seed) - 0.5;
            back = back.map(|c| c * (1.0 + self.mottle * spots));
        }
        blend(back, self.front.map(|c| c * lit), front)
    }
}

fn blend(from: Colour, to: Colour, share: f64) -> Colour {
    std::array::from_fn(|i| from[i] + (to[i] - from[i]) * share)
}

/// Two colours that differ in brightness, so that the thing is seen in grey, too.
fn colours(random: &mut Random) -> (Colour, Colour) {
    loop {
        let (a, b) = (colour(random), colour(random));
        if (brightness(a) - brightness(b)).abs() > 0.3 {
            return (a, b);
        }
    }
}

fn brightness([red, green, blue]: Colour) -> f64 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// A hue of full range, rarely pale and rarely dark.
fn colour(random: &mut Random) -> Colour {
    let hue = random.within(0.0, 6.0);
    let saturation = random.within(0.15, 0.95);
    let value = random.within(0.25, 1.0);
    let channel = |shift: f64| {
        let h = (hue + shift) % 6.0;
        let pure = ((h - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        value * (1.0 - saturation * (1.0 - pure))
    };
    [channel(0.0), channel(4.0), channel(2.0)]
}
