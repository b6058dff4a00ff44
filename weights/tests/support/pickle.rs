//! A tiny pickle writer: each function gives the opcodes that leave one value on the stack.

/// Opcodes.
pub type Code = Vec<u8>;

pub fn program(root: &Code) -> Vec<u8> {
    [b"\x80\x02".as_slice(), root, b"."].concat()
}

pub fn text(s: &str) -> Code {
    [
        b"X".as_slice(),
        &(s.len() as u32).to_le_bytes(),
        s.as_bytes(),
    ]
    .concat()
}

pub fn int(n: i64) -> Code {
    [b"\x8a\x08".as_slice(), &n.to_le_bytes()].concat()
}

pub fn none() -> Code {
    b"N".to_vec()
}

pub fn boolean(b: bool) -> Code {
    vec![if b { 0x88 } else { 0x89 }]
}

pub fn tuple(items: &[Code]) -> Code {
    [b"(".as_slice(), &items.concat(), b"t"].concat()
}

pub fn list(items: &[Code]) -> Code {
    [b"](".as_slice(), &items.concat(), b"e"].concat()
}

pub fn dict(items: &[(Code, Code)]) -> Code {
    let items: Vec<_> = items
        .iter()
        .flat_map(|(k, v)| [k.clone(), v.clone()])
        .collect();
    [b"}(".as_slice(), &items.concat(), b"u"].concat()
}

pub fn global(module: &str, name: &str) -> Code {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn reduce(callable: &Code, args: &[Code]) -> Code {
    [callable.as_slice(), &tuple(args), b"R"].concat()
}

pub fn build(object: &Code, state: &Code) -> Code {
    [object.as_slice(), state, b"b"].concat()
}

pub fn new_object(module: &str, name: &str, state: &Code) -> Code {
    let object = [global(module, name).as_slice(), b")\x81"].concat();
    build(&object, state)
}

pub fn ints(values: &[i64]) -> Code {
    tuple(&values.iter().map(|n| int(*n)).collect::<Vec<_>>())
}

pub fn storage(class: &str, key: &str, numel: i64) -> Code {
    let id = tuple(&[
        text("storage"),
        global("torch", class),
        text(key),
        text("cpu"),
        int(numel),
    ]);
    [id.as_slice(), b"Q"].concat()
}

pub fn tensor(storage: &Code, offset: i64, shape: &[i64], strides: &[i64]) -> Code {
    let hooks = reduce(&global("collections", "OrderedDict"), &[]);
    let args = [
        storage.clone(),
        int(offset),
        ints(shape),
        ints(strides),
        boolean(false),
        hooks,
    ];
    reduce(&global("torch._utils", "_rebuild_tensor_v2"), &args)
}

pub fn legacy_system(little_endian: bool) -> Code {
    dict(&[
        (text("protocol_version"), int(1001)),
        (text("little_endian"), boolean(little_endian)),
    ])
}
