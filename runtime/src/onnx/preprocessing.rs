//! The preprocessing that an ONNX file's metadata states.
//!
//! Key `zoo.preprocessing`, a JSON object:
//! `{"size":[224,224],"crop_pct":0.875,"interpolation":"bicubic","mean":[..3],"std":[..3]}`.

use super::OnnxError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use zoo_backbones::{Interpolation, Preprocessing};

/// The metadata key.
pub const PREPROCESSING_KEY: &str = "zoo.preprocessing";

/// How images become the input of an ONNX graph; the fields are those of [`Preprocessing`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxPreprocessing {
    /// Height and width of the input in pixels.
    pub size: (usize, usize),
    /// The shorter side is resized to floor(size / crop_pct), then the centre is cropped.
    pub crop_pct: f64,
    /// Filter of the resize.
    interpolation: Filter,
    /// Subtracted from RGB in [0, 1].
    pub mean: [f32; 3],
    /// Divides afterwards.
    pub std: [f32; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Filter {
    Bilinear,
    Bicubic,
}

impl OnnxPreprocessing {
    /// The same, as models of the zoo state it.
    pub fn to_preprocessing(self) -> Preprocessing {
        Preprocessing {
            size: self.size,
            crop_pct: self.crop_pct,
            interpolation: match self.interpolation {
                Filter::Bilinear => Interpolation::Bilinear,
                Filter::Bicubic => Interpolation::Bicubic,
            },
            mean: self.mean,
            std: self.std,
            source: "the file's metadata",
        }
    }
}

impl From<&Preprocessing> for OnnxPreprocessing {
    fn from(p: &Preprocessing) -> Self {
        OnnxPreprocessing {
            size: p.size,
            crop_pct: p.crop_pct,
            interpolation: match p.interpolation {
                Interpolation::Bilinear => Filter::Bilinear,
                Interpolation::Bicubic => Filter::Bicubic,
            },
            mean: p.mean,
            std: p.std,
        }
    }
}

/// What the metadata states; `None` where it states nothing.
pub(super) fn from_metadata(
    path: &Path,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<OnnxPreprocessing>, OnnxError> {
    let Some(text) = metadata.get(PREPROCESSING_KEY) else {
        return Ok(None);
    };
    let wrong = |reason: String| OnnxError::Metadata {
        path: path.to_path_buf(),
        key: PREPROCESSING_KEY,
        reason,
    };
    let p: OnnxPreprocessing = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let sizes = [p.size.0, p.size.1];
    let finite = p.mean.iter().chain(&p.std).all(|v| v.is_finite());
    let sensible = sizes.iter().all(|n| (1..=1 << 14).contains(n))
        && p.crop_pct > 0.0
        && p.crop_pct <= 1.0
        && finite
        && p.std.iter().all(|&s| s > 0.0);
    if sensible {
        Ok(Some(p))
    } else {
        Err(wrong(format!("{text} is out of range")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Preprocessing = Preprocessing {
        size: (224, 256),
        crop_pct: 0.9,
        interpolation: Interpolation::Bicubic,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        source: "the file's metadata",
    };

    fn read(text: &str) -> Result<Option<OnnxPreprocessing>, OnnxError> {
        let metadata = BTreeMap::from([(PREPROCESSING_KEY.to_owned(), text.to_owned())]);
        from_metadata(Path::new("a.onnx"), &metadata)
    }

    #[test]
    fn what_is_written_is_read() {
        let text = serde_json::to_string(&OnnxPreprocessing::from(&PLAIN)).unwrap();
        let found = read(&text).unwrap().unwrap();
        assert_eq!(found.to_preprocessing(), PLAIN);
        assert!(text.contains(r#""interpolation":"bicubic""#), "{text}");
    }

    #[test]
    fn nonsense_is_named() {
        let good = serde_json::to_string(&OnnxPreprocessing::from(&PLAIN)).unwrap();
        for wrong in [
            "{}".to_owned(),
            good.replace("224", "0"),
            good.replace("0.9", "0.0"),
            good.replace("0.229", "-1"),
            good.replace("bicubic", "nearest"),
        ] {
            let message = read(&wrong).unwrap_err().to_string();
            assert!(
                message.contains("a.onnx") && message.contains(PREPROCESSING_KEY),
                "{message}"
            );
        }
    }
}
