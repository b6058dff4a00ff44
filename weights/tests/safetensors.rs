//! Our safetensors files read by the reference crate, and the reference's by us.

mod support;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as Reference, TensorView};
use zoo_weights::{Checkpoint, Dtype, Format, Options, TensorData, WriteError, write_safetensors};

fn reference(dtype: Dtype) -> Reference {
    match dtype {
        Dtype::Bool => Reference::BOOL,
        Dtype::U8 => Reference::U8,
        Dtype::I8 => Reference::I8,
        Dtype::I16 => Reference::I16,
        Dtype::I32 => Reference::I32,
        Dtype::I64 => Reference::I64,
        Dtype::F16 => Reference::F16,
        Dtype::BF16 => Reference::BF16,
        Dtype::F32 => Reference::F32,
        Dtype::F64 => Reference::F64,
    }
}

fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> TensorData<'static> {
    let bytes: Vec<u8> = (0..shape.iter().product::<usize>() * dtype.size())
        .map(|i| (i * 7 + name.len()) as u8)
        .collect();
    TensorData {
        name: name.to_owned().into(),
        dtype,
        shape: shape.to_vec().into(),
        bytes: bytes.into(),
    }
}

fn arbitrary_tensors() -> impl Strategy<Value = Vec<TensorData<'static>>> {
    let one = (0usize..10, prop::collection::vec(0usize..4, 0..4));
    prop::collection::btree_map("[a-z\"\\\\é.]{1,9}", one, 0..8).prop_map(|map| {
        map.into_iter()
            .map(|(name, (dtype, shape))| tensor(&name, Dtype::ALL[dtype], &shape))
            .collect()
    })
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("format".into(), "pt".into()),
        ("by".into(), "zoo \"1\"".into()),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_reference_reads_what_we_write(tensors in arbitrary_tensors()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write_safetensors(&path, &tensors, &metadata()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        prop_assert_eq!(read.len(), tensors.len());
        for t in &tensors {
            let view = read.tensor(&t.name).unwrap();
            prop_assert_eq!((view.dtype(), view.shape(), view.data()), (reference(t.dtype), &*t.shape, &*t.bytes));
        }
    }

    #[test]
    fn we_read_what_the_reference_writes(tensors in arbitrary_tensors()) {
        let views: Vec<_> = tensors.iter()
            .map(|t| (&*t.name, TensorView::new(reference(t.dtype), t.shape.to_vec(), &t.bytes).unwrap()))
            .collect();
        let metadata: HashMap<_, _> = metadata().into_iter().collect();
        let bytes = safetensors::serialize(views, Some(metadata.clone())).unwrap();
        let read = Checkpoint::from_bytes("reference", bytes, &Options::default()).unwrap();
        prop_assert_eq!(read.format(), Format::Safetensors);
        prop_assert_eq!(read.metadata(), &metadata.into_iter().collect::<BTreeMap<_, _>>());
        prop_assert_eq!(read.tensors().len(), tensors.len());
        for t in &tensors {
            let info = read.get(&t.name).unwrap();
            prop_assert_eq!((info.dtype, info.shape.as_slice()), (t.dtype, &*t.shape));
            prop_assert_eq!(&*read.bytes(&t.name).unwrap(), &*t.bytes);
        }
    }
}

#[test]
fn the_order_given_does_not_change_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = vec![
        tensor("b", Dtype::U8, &[3]),
        tensor("a", Dtype::F32, &[2, 2]),
        tensor("c", Dtype::F64, &[1]),
    ];
    let write = |name: &str, tensors: &[TensorData<'_>]| {
        let path = folder.path().join(name);
        write_safetensors(&path, tensors, &BTreeMap::new()).unwrap();
        std::fs::read(path).unwrap()
    };
    let first = write("1", &tensors);
    tensors.reverse();
    assert_eq!(first, write("2", &tensors));
}

#[test]
fn a_pickle_converts_to_the_same_tensors() {
    let pickle = support::torch_zip(&support::small_dict(), &[("0", support::floats(6))]);
    let before = Checkpoint::from_bytes("pickle", pickle, &Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    write_safetensors(&path, &before.data().unwrap(), &BTreeMap::new()).unwrap();
    let after = Checkpoint::open(&path).unwrap();
    assert_eq!(after.tensors(), before.tensors());
    assert_eq!(after.data().unwrap(), before.data().unwrap());
    assert_eq!(
        zoo_weights::file_sha256(&path).unwrap(),
        zoo_weights::bytes_sha256(&std::fs::read(&path).unwrap())
    );
}

#[test]
fn a_refused_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    std::fs::write(&path, "old").unwrap();
    let short = TensorData {
        bytes: Cow::Borrowed(&[0; 3]),
        ..tensor("a", Dtype::F32, &[1])
    };
    let refused = |tensors: &[TensorData<'_>]| {
        write_safetensors(&path, tensors, &BTreeMap::new()).unwrap_err()
    };
    assert!(matches!(refused(&[short]), WriteError::Size { .. }));
    let twice = tensor("a", Dtype::U8, &[1]);
    assert!(matches!(
        refused(&[twice.clone(), twice]),
        WriteError::Name { .. }
    ));
    assert!(matches!(
        refused(&[tensor("__metadata__", Dtype::U8, &[1])]),
        WriteError::Name { .. }
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("no/such/folder/w");
    assert!(matches!(
        write_safetensors(&nowhere, &[], &BTreeMap::new()),
        Err(WriteError::Io { .. })
    ));
}
