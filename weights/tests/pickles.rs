//! Which container is read, which prefixes go, what happens to objects beside the weights.

mod support;

use support::pickle::*;
use support::{floats, small_dict, small_tensor, torch_legacy, torch_zip};
use zoo_weights::{Checkpoint, Dtype, Format, Note, Options, Problem};

fn open(root: &Code) -> Checkpoint {
    open_with(root, &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn open_with(root: &Code, options: &Options) -> Result<Checkpoint, Problem> {
    let bytes = torch_zip(root, &[("0", floats(6))]);
    Checkpoint::from_bytes("test.pth", bytes, options).map_err(|e| e.problem)
}

fn container(name: &str) -> Options {
    Options {
        container: Some(name.into()),
        ..Options::default()
    }
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint
        .tensors()
        .iter()
        .map(|t| t.name.as_str())
        .collect()
}

fn holding(key: &str) -> Code {
    dict(&[(text(key), small_tensor())])
}

#[test]
fn tensors_have_their_dtype_shape_and_values() {
    let checkpoint = open(&small_dict());
    assert_eq!(checkpoint.format(), Format::TorchZip);
    let w = checkpoint.get("w").unwrap();
    assert_eq!(
        (w.dtype, w.shape.as_slice(), w.numel()),
        (Dtype::F32, [2, 3].as_slice(), 6)
    );
    assert_eq!(
        checkpoint.to_f32("w").unwrap(),
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    );
    assert!(matches!(
        checkpoint.bytes("w").unwrap(),
        std::borrow::Cow::Borrowed(_)
    ));
    assert!(checkpoint.bytes("v").is_err());
    assert_eq!(checkpoint.total_elements(), 6);
    assert_eq!(checkpoint.dtype_histogram()[&Dtype::F32], (1, 6));
}

#[test]
fn views_share_their_storage() {
    let six = storage("FloatStorage", "0", 6);
    let checkpoint = open(&dict(&[
        (text("transposed"), tensor(&six, 0, &[3, 2], &[1, 3])),
        (text("column"), tensor(&six, 1, &[2], &[3])),
        (text("expanded"), tensor(&six, 5, &[2, 2], &[0, 0])),
        (text("scalar"), tensor(&six, 4, &[], &[])),
        (text("empty"), tensor(&six, 99, &[0, 4], &[4, 1])),
    ]));
    assert_eq!(
        checkpoint.to_f64("transposed").unwrap(),
        [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    );
    assert_eq!(checkpoint.to_f64("column").unwrap(), [1.0, 4.0]);
    assert_eq!(checkpoint.to_f64("expanded").unwrap(), [5.0; 4]);
    assert_eq!(checkpoint.to_f64("scalar").unwrap(), [4.0]);
    assert!(checkpoint.to_f64("empty").unwrap().is_empty());
}

#[test]
fn a_window_of_an_old_storage_begins_at_its_offset() {
    let id = [
        text("storage"),
        global("torch", "FloatStorage"),
        text("0"),
        text("cpu"),
        int(6),
    ];
    let window = tuple(&[text("view"), int(2), int(3)]);
    let view = [tuple(&[id.as_slice(), &[window]].concat()).as_slice(), b"Q"].concat();
    let root = dict(&[(text("w"), tensor(&view, 1, &[2], &[1]))]);
    let file = torch_legacy(&root, &[("0", 6, floats(6))]);
    let checkpoint = Checkpoint::from_bytes("old.pth", file, &Options::default()).unwrap();
    assert_eq!(checkpoint.format(), Format::TorchLegacy);
    assert_eq!(checkpoint.to_f32("w").unwrap(), [3.0, 4.0]);
}

#[test]
fn containers_are_preferred_in_the_order_of_official_loaders() {
    let all = ["ema", "model_ema", "model", "state_dict"];
    for n in 1..=all.len() {
        let items: Vec<_> = all[..n]
            .iter()
            .map(|key| (text(key), holding(key)))
            .collect();
        let checkpoint = open(&dict(&items));
        assert_eq!(checkpoint.container(), all[n - 1]);
        assert_eq!(names(&checkpoint), [all[n - 1]]);
        let others = checkpoint
            .notes()
            .iter()
            .filter(|n| matches!(n, Note::OtherContainer { .. }))
            .count();
        assert_eq!(others, n - 1);
    }
}

#[test]
fn a_container_can_be_chosen_by_its_path() {
    let root = dict(&[
        (text("model"), holding("a")),
        (text("extra"), dict(&[(text("ema"), holding("b"))])),
    ]);
    assert_eq!(
        names(&open_with(&root, &container("extra/ema")).unwrap()),
        ["b"]
    );
    let error = open_with(&root, &container("ema")).unwrap_err();
    assert!(
        error.to_string().contains(r#"it has "model", "extra/ema""#),
        "{error}"
    );
}

#[test]
fn optimiser_state_is_never_taken_for_weights() {
    let state = dict(&[(text("state"), dict(&[(int(0), holding("exp_avg"))]))]);
    let root = dict(&[
        (text("optimizer"), state.clone()),
        (text("my_weights"), holding("w")),
    ]);
    assert_eq!(open(&root).container(), "my_weights");
    assert!(matches!(
        open_with(&dict(&[(text("optimizer"), state)]), &Options::default()),
        Err(Problem::NoTensors { .. })
    ));
}

#[test]
fn wrappers_are_stripped_only_from_all_names() {
    let items = |keys: &[&str]| {
        dict(
            &keys
                .iter()
                .map(|k| (text(k), small_tensor()))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        names(&open(&items(&["module._orig_mod.a", "module._orig_mod.b"]))),
        ["a", "b"]
    );
    assert_eq!(names(&open(&items(&["module.a", "b"]))), ["module.a", "b"]);
}

#[test]
fn tensors_under_a_prefix_can_be_taken_alone() {
    let root = dict(&[
        (text("backbone.a"), small_tensor()),
        (text("neck.a"), small_tensor()),
    ]);
    let under = |prefix: &str| {
        open_with(
            &root,
            &Options {
                under: Some(prefix.into()),
                ..Options::default()
            },
        )
    };
    let backbone = under("backbone.").unwrap();
    assert_eq!(names(&backbone), ["a"]);
    assert!(backbone.notes().contains(&Note::OutsidePrefix {
        prefix: "backbone.".into(),
        tensors: 1
    }));
    assert!(matches!(under("head."), Err(Problem::NothingUnder { .. })));
}

#[test]
fn objects_beside_the_weights_are_opaque_and_named() {
    let namespace = new_object("argparse", "Namespace", &dict(&[(text("lr"), int(1))]));
    let system = reduce(&global("os", "system"), &[text("touch /tmp/owned")]);
    let root = dict(&[
        (text("model"), small_dict()),
        (text("args"), namespace),
        (text("evil"), system),
    ]);
    let checkpoint = open(&root);
    assert_eq!(names(&checkpoint), ["w"]);
    let globals = vec!["argparse.Namespace".to_owned(), "os.system".to_owned()];
    assert!(checkpoint.notes().contains(&Note::NotExecuted { globals }));
}

#[test]
fn what_is_no_tensor_in_a_state_dict_is_noted() {
    let root = dict(&[
        (text("w"), small_tensor()),
        (text("_extra_state"), none()),
        (text("step"), int(7)),
    ]);
    let checkpoint = open(&root);
    assert_eq!(names(&checkpoint), ["w"]);
    assert!(checkpoint.notes().contains(&Note::NotTensors {
        keys: vec!["_extra_state".into(), "step".into()]
    }));
}

#[test]
fn a_whole_module_gives_the_names_of_its_state_dict() {
    let module = |parameters: &[(Code, Code)],
                  buffers: &[(Code, Code)],
                  children: &[(Code, Code)],
                  transient: &[Code]| {
        let set = reduce(&global("__builtin__", "set"), &[list(transient)]);
        let state = dict(&[
            (text("training"), boolean(false)),
            (text("_parameters"), dict(parameters)),
            (text("_buffers"), dict(buffers)),
            (text("_non_persistent_buffers_set"), set),
            (text("_modules"), dict(children)),
        ]);
        new_object("my.models", "Net", &state)
    };
    let leaf = module(
        &[(text("weight"), small_tensor()), (text("bias"), none())],
        &[
            (text("mean"), small_tensor()),
            (text("cache"), small_tensor()),
        ],
        &[],
        &[text("cache")],
    );
    let root = module(
        &[(text("scale"), small_tensor())],
        &[],
        &[(text("conv"), leaf), (text("gone"), none())],
        &[],
    );
    for root in [root.clone(), dict(&[(text("model"), root)])] {
        assert_eq!(names(&open(&root)), ["scale", "conv.weight", "conv.mean"]);
    }
}

#[test]
fn text_of_pickle_protocol_0_is_understood() {
    let key = b"S'w'\n".to_vec();
    assert_eq!(names(&open(&dict(&[(key, small_tensor())]))), ["w"]);
}
