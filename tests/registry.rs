//! What holds for every model of the registry, without knowing any of them.
//!
//! Models with more than 15 million parameters differ from their family's smaller ones in widths and depths only;
//! they run too with ZOO_TEST_ALL=1.

use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use zoo::backbones::{InputForm, Variant, variants};
use zoo::runtime::{Head, HeadTensors, Options, Precision, Session, WeightsSource, key_maps};
use zoo::weights::formula::Formula;
use zoo::weights::{Direction, write_safetensors};

fn formula() -> Formula {
    Formula {
        salt: "zoo".to_owned(),
        gain: 0.7,
    }
}

fn open(variant: &'static Variant, precision: Precision, fuse: bool) -> Session {
    open_from(variant, &WeightsSource::Formula(formula()), precision, fuse)
}

fn open_from(
    variant: &'static Variant,
    weights: &WeightsSource,
    precision: Precision,
    fuse: bool,
) -> Session {
    let options = Options {
        precision,
        threads: Some(1),
        fuse,
        ..Options::default()
    };
    Session::open(variant, weights, &options).unwrap_or_else(|e| panic!("{}: {e}", variant.name))
}

/// Inputs of the model's own form, size and channels.
fn images(session: &Session, batch: usize) -> Tensor {
    let shape = session.input_shape(batch as i64);
    let unsigned: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
    Tensor::from_slice(&formula().fill_input(&unsigned)).reshape(shape)
}

fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    assert_eq!(a.size(), b.size());
    ((&a - &b).abs().max() / b.abs().max()).double_value(&[])
}

/// Variants above this run only when all are asked for.
const LARGE: u64 = 15_000_000;

/// Runs `check` on every variant and names all that fail, not only the first.
fn for_each(check: impl Fn(&'static Variant) -> Result<(), String>) {
    let all = std::env::var_os("ZOO_TEST_ALL").is_some();
    let failed: Vec<String> = variants()
        .filter(|v| all || v.params <= LARGE)
        .filter_map(|v| check(v).err().map(|e| format!("{}: {e}", v.name)))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn within(error: f64, tolerance: f64, what: &str) -> Result<(), String> {
    if error <= tolerance {
        Ok(())
    } else {
        Err(format!("{what} differ by {error:e}"))
    }
}

#[test]
fn fusing_changes_nothing_and_stages_are_as_announced() {
    for_each(|variant| {
        let plain = open(variant, Precision::F64, false);
        if plain.params() != variant.params {
            return Err(format!(
                "{} parameters, not {}",
                plain.params(),
                variant.params
            ));
        }
        let x = images(&plain, 1);
        let expected = plain.logits(&x).map_err(|e| e.to_string())?;
        if !bool::try_from(expected.isfinite().all()).unwrap() {
            return Err("logits are not finite".to_owned());
        }
        let fused = open(variant, Precision::F64, true);
        let logits = fused.logits(&x).map_err(|e| e.to_string())?;
        within(relative_error(&logits, &expected), 1e-9, "fused logits")?;
        let maps = fused.stages(&x).map_err(|e| e.to_string())?;
        let (height, width) = variant.preprocessing.size;
        let announced = fused.stage_info();
        if maps.len() != announced.len() {
            return Err(format!(
                "{} stages, {} announced",
                maps.len(),
                announced.len()
            ));
        }
        for (map, stage) in maps.iter().zip(announced) {
            let up = |side: usize| (side as i64 + stage.stride - 1) / stage.stride;
            let size = [1, stage.channels, up(height), up(width)];
            // Sequences and points have no height: their maps are told by their channels.
            let known = if is_map(fused.input_form()) { 4 } else { 2 };
            if map.size()[..known] != size[..known] {
                return Err(format!("stage {:?}, announced {size:?}", map.size()));
            }
        }
        Ok(())
    });
}

fn is_map(form: InputForm) -> bool {
    !matches!(form, InputForm::Sequence | InputForm::Points)
}

#[test]
fn an_image_gives_the_same_logits_alone_and_in_a_batch() {
    for_each(|variant| {
        let session = open(variant, Precision::F32, true);
        let x = images(&session, 3);
        let together = session.logits(&x).map_err(|e| e.to_string())?;
        let alone = session
            .logits(&x.narrow(0, 2, 1))
            .map_err(|e| e.to_string())?;
        within(
            relative_error(&together.narrow(0, 2, 1), &alone),
            session.float32_tolerance(),
            "logits alone and in a batch",
        )
    });
}

#[test]
fn weights_survive_a_file_under_every_key_map() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    for_each(|variant| {
        let session = open(variant, Precision::F32, false);
        let x = images(&session, 1);
        let expected = session.logits(&x).map_err(|e| e.to_string())?;
        let tensors = session.tensors().map_err(|e| e.to_string())?;
        let official: Vec<&str> = tensors.iter().map(|t| t.name.as_ref()).collect();
        let mut namings = vec![("official".to_owned(), None)];
        for map in key_maps(variant).map_err(|e| e.to_string())? {
            let names = map
                .rename_all(&official, Direction::ToOther)
                .map_err(|e| e.to_string())?;
            namings.push((map.name().to_owned(), Some(names)));
        }
        for (naming, names) in namings {
            let mut renamed = tensors.clone();
            for (tensor, name) in renamed.iter_mut().zip(names.into_iter().flatten()) {
                tensor.name = name.into();
            }
            write_safetensors(&file, &renamed, &BTreeMap::new()).map_err(|e| e.to_string())?;
            let source = WeightsSource::File {
                path: file.clone(),
                container: None,
            };
            let loaded = open_from(variant, &source, Precision::F32, false);
            let logits = loaded.logits(&x).map_err(|e| e.to_string())?;
            if logits != expected {
                return Err(format!("under {naming} names the logits differ"));
            }
        }
        Ok(())
    });
}

/// A trained backbone under another head, and under none.
#[test]
fn a_checkpoint_gives_its_backbone_to_a_new_head_and_to_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    let source = WeightsSource::File {
        path: file.clone(),
        container: None,
    };
    let open_under = |variant, head| {
        let options = Options {
            threads: Some(1),
            fuse: false,
            head,
            ..Options::default()
        };
        Session::open(variant, &source, &options)
    };
    for_each(|variant| {
        let head = HeadTensors::of(variant, &variant.build_options());
        if head.is_empty() {
            return Ok(());
        }
        let published = open(variant, Precision::F32, false);
        let x = images(&published, 1);
        let features = published.features(&x).map_err(|e| e.to_string())?;
        let mut tensors = published.tensors().map_err(|e| e.to_string())?;
        write_safetensors(&file, &tensors, &BTreeMap::new()).map_err(|e| e.to_string())?;

        let narrow = open_under(variant, Head::Classes(7)).map_err(|e| e.to_string())?;
        let logits = narrow.logits(&x).map_err(|e| e.to_string())?;
        if !narrow.new_head() || logits.size() != [1, 7] {
            return Err(format!("a new head gives logits {:?}", logits.size()));
        }
        if narrow.features(&x).map_err(|e| e.to_string())? != features {
            return Err("features under a new head differ".to_owned());
        }
        let seven = narrow.tensors().map_err(|e| e.to_string())?;
        write_safetensors(&file, &seven, &BTreeMap::new()).map_err(|e| e.to_string())?;
        match open_under(variant, Head::Published) {
            Err(e) if e.to_string().contains("--classes 7") => {}
            Err(e) => return Err(format!("`{e}` names no remedy")),
            Ok(_) => return Err("a head of 7 classes loads as the published one".to_owned()),
        }
        if open_under(variant, Head::Classes(7)).is_ok_and(|s| s.new_head()) {
            return Err("a head of the right width was not taken".to_owned());
        }

        let head = head.behind_features(variant, &variant.build_options());
        tensors.retain(|t| !head.contains(t.name.as_ref()));
        write_safetensors(&file, &tensors, &BTreeMap::new()).map_err(|e| e.to_string())?;
        if open_under(variant, Head::Published).is_ok() {
            return Err("a checkpoint without a head loads".to_owned());
        }
        let headless = open_under(variant, Head::None).map_err(|e| e.to_string())?;
        if headless.features(&x).map_err(|e| e.to_string())? != features {
            return Err("features without a head differ".to_owned());
        }
        Ok(())
    });
}

#[test]
fn a_second_size_runs_or_is_refused_with_a_reason() {
    for_each(|variant| {
        let session = open(variant, Precision::F32, true);
        let (height, width) = variant.preprocessing.size;
        let size = [height as i64 + 32, width as i64 + 64];
        let other = session
            .input_form()
            .shape(1, session.input_channels(), size);
        let x = Tensor::ones(other, (Kind::Float, tch::Device::Cpu));
        match session.logits(&x) {
            Ok(logits) if bool::try_from(logits.isfinite().all()).unwrap() => Ok(()),
            Ok(_) => Err("logits are not finite".to_owned()),
            Err(zoo::runtime::SessionError::Input { reason, .. }) => {
                let names_a_size = reason.chars().any(|c| c.is_ascii_digit());
                names_a_size
                    .then_some(())
                    .ok_or(format!("`{reason}` names no size"))
            }
            Err(e) => Err(e.to_string()),
        }
    });
}

#[test]
fn wrong_inputs_are_refused_by_name() {
    let variant = zoo::backbones::find("shvit-s1").unwrap();
    let session = open(variant, Precision::F32, true);
    for shape in [
        vec![3, 224, 224],
        vec![1, 4, 224, 224],
        vec![0, 3, 224, 224],
    ] {
        let x = Tensor::ones(&shape, (Kind::Float, tch::Device::Cpu));
        let error = session.logits(&x).unwrap_err().to_string();
        assert!(error.contains("shvit-s1"), "{error}");
    }
}
