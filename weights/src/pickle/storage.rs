//! Typed storages, as pickles name them.

use std::collections::HashMap;

use crate::dtype::Dtype;

/// Element type of a storage; PyTorch has more than this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageType {
    /// PyTorch's name of the dtype.
    pub(super) name: &'static str,
    /// Bytes of one element.
    pub(super) width: usize,
}

impl StorageType {
    const ALL: [(&'static str, &'static str, usize); 18] = [
        ("FloatStorage", "float32", 4),
        ("DoubleStorage", "float64", 8),
        ("HalfStorage", "float16", 2),
        ("BFloat16Storage", "bfloat16", 2),
        ("LongStorage", "int64", 8),
        ("IntStorage", "int32", 4),
        ("ShortStorage", "int16", 2),
        ("CharStorage", "int8", 1),
        ("ByteStorage", "uint8", 1),
        ("BoolStorage", "bool", 1),
        ("UntypedStorage", "uint8", 1),
        ("ComplexFloatStorage", "complex64", 8),
        ("ComplexDoubleStorage", "complex128", 16),
        ("QInt8Storage", "qint8", 1),
        ("QUInt8Storage", "quint8", 1),
        ("QInt32Storage", "qint32", 4),
        ("QUInt4x2Storage", "quint4x2", 1),
        ("QUInt2x4Storage", "quint2x4", 1),
    ];

    /// The type of a storage class such as `FloatStorage`.
    pub(super) fn of_class(class: &str) -> Option<StorageType> {
        let found = Self::ALL.iter().find(|(name, ..)| *name == class);
        found.map(|(_, name, width)| StorageType {
            name,
            width: *width,
        })
    }

    /// The type that `torch.NAME` is, as tensors over untyped storages name it.
    pub(super) fn of_dtype(dtype: &str) -> Option<StorageType> {
        const UNTYPED_ONLY: [(&str, usize); 7] = [
            ("uint16", 2),
            ("uint32", 4),
            ("uint64", 8),
            ("float8_e4m3fn", 1),
            ("float8_e5m2", 1),
            ("float8_e4m3fnuz", 1),
            ("float8_e5m2fnuz", 1),
        ];
        let typed = Self::ALL.iter().map(|(_, name, width)| (*name, *width));
        let found = typed.chain(UNTYPED_ONLY).find(|(name, _)| *name == dtype);
        found.map(|(name, width)| StorageType { name, width })
    }

    /// The dtype, if this crate reads it.
    pub(super) fn dtype(self) -> Option<Dtype> {
        Dtype::from_torch_name(self.name)
    }
}

/// A storage that the pickle speaks of.
#[derive(Debug)]
pub(super) struct Declared<'a> {
    pub(super) key: &'a str,
    /// Elements it claims to have.
    pub(super) numel: usize,
    pub(super) kind: StorageType,
}

/// The storages of one pickle, each once.
#[derive(Debug, Default)]
pub(super) struct Declarations<'a> {
    pub(super) list: Vec<Declared<'a>>,
    by_key: HashMap<&'a str, usize>,
}

impl<'a> Declarations<'a> {
    /// Index of the storage; an error text when an earlier mention of the key differs.
    pub(super) fn declare(&mut self, declared: Declared<'a>) -> Result<usize, String> {
        if let Some(&known) = self.by_key.get(declared.key) {
            let before = &self.list[known];
            if (before.numel, before.kind) != (declared.numel, declared.kind) {
                return Err(format!(
                    "storage {:?} is declared twice and differently",
                    declared.key
                ));
            }
            return Ok(known);
        }
        self.by_key.insert(declared.key, self.list.len());
        self.list.push(declared);
        Ok(self.list.len() - 1)
    }
}
