//! A small data set that zoo draws itself, so that everything can be tried without a download: 16 kinds of figures and
//! textures, 12 images of each, of differing size, colour, place and rotation.
//!
//! The pixels are the same on every machine: all arithmetic is exactly defined. Classes are the kinds, not
//! ImageNet's, so a pretrained model's accuracy on it means nothing; equal logits of two engines do.

mod exact;
mod kinds;
mod paint;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::classes::Classes;
use super::error::DataError;
use super::layout::{Labels, Layout};
use super::{DataSet, Sample, Source};
use kinds::KINDS;
use paint::{Picture, SIZES, paint};

/// Draws the set: PNG files in memory, with the ids and labels that [`write_drawn`]'s folder has when it is opened.
///
/// Uses all threads of rayon's pool.
pub fn drawn() -> DataSet {
    let all: Vec<(usize, usize)> = (0..KINDS.len())
        .flat_map(|kind| (0..SIZES.len()).map(move |number| (kind, number)))
        .collect();
    let samples = all.into_par_iter().map(|(label, number)| {
        let (kind, name) = KINDS[label];
        Sample {
            id: format!("{name}/{name}_{number:02}.png"),
            label: Some(label),
            source: Source::Memory(Arc::from(png_file(&paint(kind, number)))),
        }
    });
    DataSet {
        root: "drawn by zoo".to_owned(),
        layout: Layout::Drawn,
        labels: Labels::Kinds,
        samples: samples.collect(),
        classes: Classes::named(KINDS.map(|(_, name)| name)),
        skipped: Vec::new(),
    }
}

/// Writes the drawn set as class folders into `folder`, which is made if need be.
///
/// # Errors
/// [`DataError::NotEmpty`] where the folder holds anything: other files would become part of the set.
/// [`DataError::Io`].
pub fn write_drawn(folder: &Path) -> Result<(), DataError> {
    fs::create_dir_all(folder).map_err(|e| DataError::io(folder, e))?;
    let mut entries = fs::read_dir(folder).map_err(|e| DataError::io(folder, e))?;
    if entries.next().is_some() {
        return Err(DataError::NotEmpty {
            path: folder.to_owned(),
        });
    }
    for (_, name) in KINDS {
        let class = folder.join(name);
        fs::create_dir(&class).map_err(|e| DataError::io(&class, e))?;
    }
    for sample in drawn().samples {
        let path = folder.join(&sample.id);
        let bytes = sample.source.read().map_err(|e| DataError::io(&path, e))?;
        fs::write(&path, bytes).map_err(|e| DataError::io(&path, e))?;
    }
    Ok(())
}

fn png_file(picture: &Picture) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&picture.pixels))
        .expect("the buffer has the size of the header and memory takes all writes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{OpenOptions, hex};
    use sha2::{Digest, Sha256};
    use std::collections::HashSet;
    use std::io::Cursor;
    use std::sync::OnceLock;

    /// Drawn once: it takes seconds where nothing is optimised.
    fn set() -> &'static DataSet {
        static SET: OnceLock<DataSet> = OnceLock::new();
        SET.get_or_init(drawn)
    }

    fn decode(sample: &Sample) -> (u32, u32, Vec<u8>) {
        let bytes = Cursor::new(sample.source.read().unwrap());
        let mut reader = png::Decoder::new(bytes).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        (info.width, info.height, pixels)
    }

    #[test]
    fn the_pixels_are_the_same_on_every_machine() {
        let set = set();
        assert_eq!(
            set.describe(),
            "drawn by zoo, 192 images in 16 classes, labels from the kinds"
        );
        let mut all = Sha256::new();
        let mut seen = HashSet::new();
        for (i, sample) in set.samples.iter().enumerate() {
            let (width, height, pixels) = decode(sample);
            assert_eq!((width, height), SIZES[i % SIZES.len()]);
            all.update(&pixels);
            assert!(seen.insert(pixels), "{} is like another", sample.id);
        }
        assert_eq!(
            hex(&all.finalize()),
            "50b8733ff1a0b1c08072f2076fa06bf79dd9fa85098418c6098c61683c941ee1"
        );
    }

    #[test]
    fn the_written_folder_opens_as_the_same_set() {
        let folder = tempfile::tempdir().unwrap();
        write_drawn(folder.path()).unwrap();
        let written = DataSet::open(folder.path(), &OpenOptions::default()).unwrap();
        let set = set();
        assert_eq!(written.layout, Layout::ClassFolders);
        assert_eq!(written.classes, set.classes);
        assert_eq!(written.fingerprint().unwrap(), set.fingerprint().unwrap());
        assert!(written.skipped.is_empty());
        let again = write_drawn(folder.path()).unwrap_err();
        assert!(matches!(again, DataError::NotEmpty { .. }), "{again}");
    }
}
