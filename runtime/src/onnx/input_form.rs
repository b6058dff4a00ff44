//! The form of the input that an ONNX file's metadata states, where it is not images.
//!
//! Key `zoo.input`, a JSON object: `{"form":"frames","steps":16}`.

use super::OnnxError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use zoo_backbones::InputForm;

/// The metadata key.
pub const INPUT_KEY: &str = "zoo.input";

/// [`InputForm`] as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case", deny_unknown_fields)]
enum Stated {
    Images,
    Frames { steps: i64 },
    Clips { steps: i64 },
    Sequence,
    Points,
}

/// What to write under [`INPUT_KEY`].
pub fn input_metadata(form: InputForm) -> String {
    let stated = match form {
        InputForm::Images => Stated::Images,
        InputForm::Frames { steps } => Stated::Frames { steps },
        InputForm::Clips { steps } => Stated::Clips { steps },
        InputForm::Sequence => Stated::Sequence,
        InputForm::Points => Stated::Points,
    };
    // An enumeration of numbers always has a text.
    serde_json::to_string(&stated).unwrap_or_default()
}

/// What the metadata states; images where it states nothing.
pub(super) fn from_metadata(
    path: &Path,
    metadata: &BTreeMap<String, String>,
) -> Result<InputForm, OnnxError> {
    let Some(text) = metadata.get(INPUT_KEY) else {
        return Ok(InputForm::Images);
    };
    let stated = serde_json::from_str(text).map_err(|e| OnnxError::Metadata {
        path: path.to_path_buf(),
        key: INPUT_KEY,
        reason: e.to_string(),
    })?;
    Ok(match stated {
        Stated::Images => InputForm::Images,
        Stated::Frames { steps } => InputForm::Frames { steps },
        Stated::Clips { steps } => InputForm::Clips { steps },
        Stated::Sequence => InputForm::Sequence,
        Stated::Points => InputForm::Points,
    })
}

/// Axes of an input of this form.
pub(super) fn rank(form: InputForm) -> usize {
    form.shape(1, 1, [1, 1]).len()
}

/// The axis of the channels.
pub(super) fn channel_axis(form: InputForm) -> usize {
    match form {
        InputForm::Images | InputForm::Clips { .. } | InputForm::Sequence => 1,
        InputForm::Frames { .. } | InputForm::Points => 2,
    }
}

/// The axes that the size of an input is read off.
pub(super) fn side_axes(form: InputForm) -> Range<usize> {
    match form {
        InputForm::Images => 2..4,
        InputForm::Frames { .. } | InputForm::Clips { .. } => 3..5,
        InputForm::Sequence => 2..3,
        InputForm::Points => 1..2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: [InputForm; 5] = [
        InputForm::Images,
        InputForm::Frames { steps: 16 },
        InputForm::Clips { steps: 10 },
        InputForm::Sequence,
        InputForm::Points,
    ];

    #[test]
    fn forms_survive_the_metadata() {
        let read = |text: &str| {
            let metadata = BTreeMap::from([(INPUT_KEY.to_owned(), text.to_owned())]);
            from_metadata(Path::new("a.onnx"), &metadata)
        };
        for form in FORMS {
            assert_eq!(read(&input_metadata(form)).unwrap(), form);
        }
        assert!(read(r#"{"form":"smells"}"#).is_err());
    }

    /// The axes are those of [`InputForm::shape`].
    #[test]
    fn axes_are_the_shapes() {
        for form in FORMS {
            let shape = form.shape(7, 11, [13, 17]);
            assert_eq!(rank(form), shape.len());
            assert_eq!(shape[channel_axis(form)], 11, "{form}");
            let sides = &shape[side_axes(form)];
            assert_eq!(sides, &[13, 17][2 - sides.len()..], "{form}");
        }
    }
}
