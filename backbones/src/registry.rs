//! Names to variants. Adding a family: its file, and its line in `FAMILIES`.

use crate::{
    Variant, activator, biformer, halonet, karat, maxvit_stl, mixer, moh_transnext, ninformer,
    overlock, resnet, shvit, sparsifiner, step, vit,
};

static FAMILIES: &[&[Variant]] = &[
    activator::VARIANTS,
    biformer::VARIANTS,
    halonet::VARIANTS,
    karat::VARIANTS,
    maxvit_stl::VARIANTS,
    mixer::VARIANTS,
    moh_transnext::VARIANTS,
    ninformer::VARIANTS,
    overlock::VARIANTS,
    resnet::VARIANTS,
    shvit::VARIANTS,
    sparsifiner::VARIANTS,
    step::VARIANTS,
    step::sglformer::VARIANTS,
    step::spikf_semm::VARIANTS,
    step::spikformer_es::VARIANTS,
    step::spikingresformer::VARIANTS,
    step::spt::VARIANTS,
    step::swformer::VARIANTS,
    step::tim::VARIANTS,
    vit::VARIANTS,
];

/// Every variant, family by family.
pub fn variants() -> impl Iterator<Item = &'static Variant> {
    FAMILIES.iter().copied().flatten()
}

/// The variant with this name or alias; case, `-` and `_` do not matter.
pub fn find(name: &str) -> Option<&'static Variant> {
    let wanted = normalised(name);
    variants().find(|v| names(v).any(|n| normalised(n) == wanted))
}

/// The variants whose name or alias matches a glob of `*` and `?`, in registry order.
pub fn matching(glob: &str) -> Vec<&'static Variant> {
    let glob = normalised(glob);
    variants()
        .filter(|v| names(v).any(|n| glob_matches(glob.as_bytes(), normalised(n).as_bytes())))
        .collect()
}

fn names(v: &'static Variant) -> impl Iterator<Item = &'static str> {
    std::iter::once(v.name).chain(v.aliases.iter().copied())
}

fn normalised(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn glob_matches(glob: &[u8], name: &[u8]) -> bool {
    match (glob.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob_matches(rest, name) || (!name.is_empty() && glob_matches(glob, &name[1..]))
        }
        (Some((b'?', glob)), Some((_, name))) => glob_matches(glob, name),
        (Some((g, glob)), Some((n, name))) if g == n => glob_matches(glob, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn names_and_aliases_are_unique() {
        let mut named = HashMap::new();
        for variant in variants() {
            for name in names(variant) {
                let first = named.entry(normalised(name)).or_insert(variant.name);
                assert_eq!(*first, variant.name, "{name} names two variants");
            }
        }
    }

    #[test]
    fn a_name_is_found_in_any_spelling() {
        for spelling in ["shvit-s1", "shvit_s1", "SHViT-S1"] {
            assert_eq!(find(spelling).map(|v| v.name), Some("shvit-s1"));
        }
        assert!(find("shvit").is_none());
    }

    #[test]
    fn globs_match_whole_names() {
        let names = |glob| matching(glob).iter().map(|v| v.name).collect::<Vec<_>>();
        assert_eq!(
            names("shvit-s?"),
            ["shvit-s1", "shvit-s2", "shvit-s3", "shvit-s4"]
        );
        assert_eq!(names("*s4"), ["shvit-s4"]);
        assert_eq!(names("shvit-s4*"), ["shvit-s4", "shvit-s4-dist"]);
        assert!(names("s1").is_empty());
    }
}
