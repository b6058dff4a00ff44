//! `.npz` archives with arrays `t`, `x`, `y` and `p`, as SpikingJelly writes events.

use crate::error::malformed;
use crate::{Event, EventsError, Limits, Recording};
use npyz::{DType, NpyFile, TypeChar};
use std::io::{Cursor, Read};
use zip::ZipArchive;

const NAME: &str = ".npz of events";

pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Recording, EventsError> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|e| malformed(NAME, e.to_string()))?;
    let mut array = |name: &str| -> Result<Vec<i64>, EventsError> {
        let refused = |what: String| malformed(NAME, format!("array `{name}`: {what}"));
        let entry = archive.by_name(&format!("{name}.npy"));
        let entry = entry.map_err(|e| refused(format!("{e}; there must be t, x, y and p")))?;
        let file = NpyFile::new(entry.take(limits.bytes)).map_err(|e| refused(e.to_string()))?;
        let [length] = file.shape() else {
            return Err(refused(format!("has {} axes, not one", file.shape().len())));
        };
        limits.check_events(*length)?;
        whole_numbers(file).map_err(refused)
    };
    let (t, x, y, p) = (array("t")?, array("x")?, array("y")?, array("p")?);
    if [x.len(), y.len(), p.len()] != [t.len(); 3] {
        let what = format!(
            "arrays of different lengths: t {}, x {}, y {}, p {}",
            t.len(),
            x.len(),
            y.len(),
            p.len()
        );
        return Err(malformed(NAME, what));
    }
    let mut events = Vec::with_capacity(t.len());
    for i in 0..t.len() {
        let place = |v: i64, axis: &str| {
            u16::try_from(v).map_err(|_| malformed(NAME, format!("event {i} is at {axis} = {v}")))
        };
        events.push(Event {
            t: t[i],
            x: place(x[i], "x")?,
            y: place(y[i], "y")?,
            on: p[i] > 0,
        });
    }
    Ok(Recording::new(events, None))
}

/// An array of integers, booleans or whole floats; memory grows with what is really there, not with what is announced.
fn whole_numbers<R: Read>(file: NpyFile<R>) -> Result<Vec<i64>, String> {
    let DType::Plain(kind) = file.dtype() else {
        return Err("has records for elements".into());
    };
    let no_number = || format!("elements of type {kind} are no numbers that count");
    let size = kind.size_field();
    match (kind.type_char(), size) {
        (TypeChar::Bool, _) => collect(file, |v: bool| Some(i64::from(v))),
        (TypeChar::Int, 1) => collect(file, |v: i8| Some(v.into())),
        (TypeChar::Int, 2) => collect(file, |v: i16| Some(v.into())),
        (TypeChar::Int, 4) => collect(file, |v: i32| Some(v.into())),
        (TypeChar::Int, 8) => collect(file, |v: i64| Some(v)),
        (TypeChar::Uint, 1) => collect(file, |v: u8| Some(v.into())),
        (TypeChar::Uint, 2) => collect(file, |v: u16| Some(v.into())),
        (TypeChar::Uint, 4) => collect(file, |v: u32| Some(v.into())),
        (TypeChar::Uint, 8) => collect(file, |v: u64| i64::try_from(v).ok()),
        (TypeChar::Float, 4) => collect(file, |v: f32| whole(v.into())),
        (TypeChar::Float, 8) => collect(file, whole),
        _ => Err(no_number()),
    }
}

fn whole(v: f64) -> Option<i64> {
    let exact = v.fract() == 0.0 && v.abs() < (1i64 << 53) as f64;
    exact.then_some(v as i64)
}

fn collect<T: npyz::Deserialize, R: Read>(
    file: NpyFile<R>,
    convert: impl Fn(T) -> Option<i64>,
) -> Result<Vec<i64>, String> {
    let mut values = Vec::new();
    for value in file.data::<T>().map_err(|e| e.to_string())? {
        let value = value.map_err(|e| e.to_string())?;
        values.push(convert(value).ok_or("has values that are no whole numbers of 63 bits")?);
    }
    Ok(values)
}
