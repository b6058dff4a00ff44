//! What the indices of a data set mean: the 1000 classes of ImageNet-1k, or a data set's own.
//!
//! Source of the standard list: the 1000 wnids are the synsets of ILSVRC2012 (Russakovsky et al. 2015,
//! <https://arxiv.org/abs/1409.0575>); the index is the position in sorted order, as every published checkpoint has it.
//! A wnid is `n` and the offset of a noun synset in WordNet 3.0, and the name is that synset's first lemma
//! (WordNet 3.0, Copyright 2006 by Princeton University, all rights reserved; its licence lies beside the list as
//! `imagenet_classes.LICENSE`).
//! Two lemmas occur twice among the 1000 (crane, maillot); those names say in brackets which one is meant.

use std::collections::HashMap;
use std::sync::OnceLock;

const TABLE: &str = include_str!("imagenet_classes.tsv");

/// One class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// The WordNet id, such as `n01440764`, where the class is an ImageNet one.
    pub wnid: Option<String>,
    /// A name for people, such as `tench`; unique in its list.
    pub name: String,
}

/// The classes of a data set: `classes.get(label)`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Classes(Vec<Class>);

impl Classes {
    /// The 1000 classes of ImageNet-1k in the standard order.
    pub fn imagenet() -> &'static Classes {
        static LIST: OnceLock<Classes> = OnceLock::new();
        LIST.get_or_init(|| Classes(TABLE.lines().filter_map(parse_line).collect()))
    }

    /// Classes that have names and no wnids: CIFAR-10, class folders of one's own.
    pub fn named<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Classes {
        let class = |name: S| Class {
            wnid: None,
            name: name.into(),
        };
        Classes(names.into_iter().map(class).collect())
    }

    /// How many classes there are; 0 where the data set says nothing about its classes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the data set says nothing about its classes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The class of an index.
    pub fn get(&self, index: usize) -> Option<&Class> {
        self.0.get(index)
    }

    /// The classes in the order of their indices.
    pub fn iter(&self) -> std::slice::Iter<'_, Class> {
        self.0.iter()
    }
}

fn parse_line(line: &str) -> Option<Class> {
    let mut fields = line.split('\t').skip(1);
    Some(Class {
        wnid: Some(fields.next()?.to_owned()),
        name: fields.next()?.to_owned(),
    })
}

/// The standard index of a wnid of ImageNet-1k.
pub fn imagenet_index(wnid: &str) -> Option<usize> {
    static INDEX: OnceLock<HashMap<&'static str, usize>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let wnids = Classes::imagenet().iter().filter_map(|c| c.wnid.as_deref());
        wnids.enumerate().map(|(i, wnid)| (wnid, i)).collect()
    });
    index.get(wnid).copied()
}

/// Whether `name` has the form of a wnid: `n` and eight digits.
pub(super) fn is_wnid(name: &str) -> bool {
    name.len() == 9 && name.starts_with('n') && name.bytes().skip(1).all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_standard_list_is_1000_sorted_wnids_with_unique_names() {
        let classes = Classes::imagenet();
        assert_eq!(classes.len(), 1000);
        let wnids: Vec<_> = classes.iter().map(|c| c.wnid.clone().unwrap()).collect();
        assert!(wnids.iter().all(|w| is_wnid(w)));
        assert!(wnids.windows(2).all(|pair| pair[0] < pair[1]));
        let names: HashSet<_> = classes.iter().map(|c| &c.name).collect();
        assert_eq!(names.len(), 1000);
        for (i, line) in TABLE.lines().enumerate() {
            assert_eq!(line.split('\t').next(), Some(i.to_string().as_str()));
            assert_eq!(line.split('\t').count(), 3, "{line}");
        }
    }

    #[test]
    fn known_classes_have_their_published_indices() {
        assert_eq!(imagenet_index("n01440764"), Some(0));
        assert_eq!(imagenet_index("n02119022"), Some(277));
        assert_eq!(imagenet_index("n15075141"), Some(999));
        assert_eq!(imagenet_index("n00000001"), None);
        assert_eq!(Classes::imagenet().get(277).unwrap().name, "red fox");
    }

    #[test]
    fn the_form_of_a_wnid() {
        assert!(is_wnid("n01440764"));
        for other in [
            "n0144076",
            "n014407640",
            "m01440764",
            "n0144076x",
            "",
            "né123456",
        ] {
            assert!(!is_wnid(other), "{other}");
        }
    }
}
