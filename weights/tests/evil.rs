//! Evil files are refused with words that help, without a panic and without taking memory that they only claim.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;
use support::evil;
use zoo_weights::{Checkpoint, Limits, Options, Problem};

/// Counts what the current thread holds, so that a test can ask for the most it ever held.
struct Counting;

thread_local! {
    /// Below zero where memory is given back that was taken before counting began.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counters are plain cells that allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get() + layout.size() as isize;
        HELD.set(held);
        MOST.set(MOST.get().max(held));
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f` and gives the most bytes that it held at one time.
fn most_held(f: impl FnOnce()) -> usize {
    HELD.set(0);
    MOST.set(0);
    f();
    MOST.get().unsigned_abs()
}

/// Opens a file and reads all its tensors.
fn read_all(bytes: Vec<u8>, limits: Limits) -> Result<usize, Problem> {
    let options = Options {
        limits,
        ..Options::default()
    };
    let checkpoint = Checkpoint::from_bytes("evil", bytes, &options).map_err(|e| e.problem)?;
    let read = checkpoint
        .tensors()
        .iter()
        .map(|t| checkpoint.bytes(&t.name).map(|b| b.len()));
    read.sum::<Result<usize, _>>().map_err(|e| e.problem)
}

#[test]
fn every_evil_file_is_refused_with_words_that_help() {
    for file in evil::all() {
        match read_all(file.bytes, Limits::default()) {
            Ok(_) => panic!("{} was read", file.name),
            Err(problem) => {
                let text = problem.to_string();
                assert!(
                    text.contains(file.says),
                    "{}: {text:?} does not say {:?}",
                    file.name,
                    file.says
                );
                assert!(
                    text.len() < 3000,
                    "{}: {} bytes of words",
                    file.name,
                    text.len()
                );
            }
        }
    }
}

#[test]
fn no_memory_is_taken_for_what_a_file_only_claims() {
    for file in evil::all() {
        let size = file.bytes.len();
        let held = most_held(|| drop(read_all(file.bytes, Limits::default())));
        let bound = 64 * size + (4 << 20);
        assert!(
            held < bound,
            "{}: {held} bytes for a file of {size}",
            file.name
        );
    }
}

#[test]
fn sound_files_are_read() {
    for (name, bytes) in support::sound() {
        assert_eq!(
            read_all(bytes, Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}")),
            24
        );
    }
}

#[test]
fn every_prefix_of_a_sound_file_is_refused() {
    for (name, bytes) in support::sound() {
        for end in 0..bytes.len() {
            assert!(
                read_all(bytes[..end].into(), Limits::default()).is_err(),
                "{name} cut to {end} bytes"
            );
        }
    }
}

#[test]
fn a_storage_that_was_changed_is_refused_when_it_is_read() {
    let zip = support::zip::Zip::checkpoint(&support::small_dict(), &[("0", support::floats(6))]);
    let bytes = zip.with("archive/data/0", |m| m.crc = Some(7)).build();
    let checkpoint = Checkpoint::from_bytes("changed", bytes, &Options::default()).unwrap();
    assert!(matches!(
        checkpoint.bytes("w").unwrap_err().problem,
        Problem::Checksum { .. }
    ));
}

#[test]
fn each_limit_is_a_limit() {
    type Case = (&'static str, fn(&mut Limits), &'static [&'static str]);
    let at_zero: [Case; 10] = [
        ("header_bytes", |l| l.header_bytes = 0, &["safetensors"]),
        (
            "pickle_bytes",
            |l| l.pickle_bytes = 0,
            &["zip", "zip64", "legacy"],
        ),
        ("objects", |l| l.objects = 0, &["zip", "zip64", "legacy"]),
        ("depth", |l| l.depth = 0, &[]),
        ("zip_members", |l| l.zip_members = 0, &["zip", "zip64"]),
        (
            "tensors",
            |l| l.tensors = 0,
            &["safetensors", "zip", "zip64", "legacy"],
        ),
        (
            "name_bytes",
            |l| l.name_bytes = 0,
            &["safetensors", "zip", "zip64", "legacy"],
        ),
        (
            "rank",
            |l| l.rank = 0,
            &["safetensors", "zip", "zip64", "legacy"],
        ),
        (
            "tensor_bytes",
            |l| l.tensor_bytes = 0,
            &["safetensors", "zip", "zip64", "legacy"],
        ),
        ("expansion_bytes", |l| l.expansion_bytes = 0, &[]),
    ];
    for (limit, set, refused) in at_zero {
        for (name, bytes) in support::sound() {
            let mut limits = Limits::default();
            set(&mut limits);
            assert_eq!(
                read_all(bytes, limits).is_err(),
                refused.contains(&name),
                "{limit} on {name}"
            );
        }
    }
}

#[test]
fn a_file_beyond_the_limit_is_not_opened() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &support::sound()[0].1).unwrap();
    let options = Options {
        limits: Limits {
            file_bytes: 10,
            ..Limits::default()
        },
        ..Options::default()
    };
    let error = Checkpoint::open_with(file.path(), &options).unwrap_err();
    assert!(matches!(error.problem, Problem::Limit { limit: 10, .. }));
    assert!(Checkpoint::open(std::env::temp_dir().as_path()).is_err());
    assert!(matches!(
        Checkpoint::open("/no/such/file".as_ref())
            .unwrap_err()
            .problem,
        Problem::Io(_)
    ));
}

/// Writes the corpus as seeds for the fuzzers of `weights/fuzz` into the folder ZOO_FUZZ_CORPUS.
#[test]
fn the_corpus_can_be_written_for_the_fuzzers() {
    let Some(folder) = std::env::var_os("ZOO_FUZZ_CORPUS") else {
        eprintln!("SKIPPED: ZOO_FUZZ_CORPUS not set");
        return;
    };
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = std::path::Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name.replace([' ', '/'], "_")), bytes).unwrap();
    };
    for (name, bytes) in support::sound() {
        write(name.trim_end_matches("64"), name, &bytes);
    }
    for (target, files) in [
        ("safetensors", evil::safetensors_files()),
        (
            "zip",
            [evil::zip_files(), evil::pickles()]
                .into_iter()
                .flatten()
                .collect(),
        ),
        ("legacy", evil::legacy_files()),
    ] {
        files
            .iter()
            .for_each(|file| write(target, file.name, &file.bytes));
    }
    for root in [
        support::small_dict(),
        support::pickle::dict(&[(support::pickle::text("model"), support::small_dict())]),
    ] {
        write(
            "pickle",
            &format!("dict_{}", root.len()),
            &support::pickle::program(&root),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed in a sound file, it is read or refused, in bounded memory.
    #[test]
    fn changed_files_never_panic(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = support::sound().swap_remove(which).1;
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let held = most_held(|| drop(read_all(bytes, Limits::default())));
        prop_assert!(held < 1 << 21, "{} bytes held", held);
    }
}
