//! Key maps: the official names of a model's tensors to the names of another library, and back, as data.
//!
//! A map is a list of rules `(official, other)`. In both texts
//!
//! | part | means |
//! | --- | --- |
//! | `{i:2..3}` | a whole number from 2 to 3, both included (in the official text) |
//! | `{j:3..}` | a whole number from 3 |
//! | `{rest}` | any text of at least one character, dots too |
//! | `{i}`, `{i-1}`, `{i+3}` | the number that the official text calls `i`, shifted (in the other text) |
//! | anything else | itself |
//!
//! so `blocks{i:2..3}.{j:3..}.{rest}` to `stages.{i-1}.blocks.{j-3}.{rest}` takes `blocks2.4.conv.weight` to
//! `stages.1.blocks.1.conv.weight`, and back. The first rule that fits a name is used; a name that no rule
//! fits stays as it is. That a map can be reversed on a model's names is checked whenever it is used.

mod rule;

use std::collections::{HashMap, HashSet};

use thiserror::Error;

use rule::Rule;

/// Which way to rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From official names to the other library's.
    ToOther,
    /// From the other library's names to the official ones.
    ToOfficial,
}

impl Direction {
    fn back(self) -> Direction {
        match self {
            Direction::ToOther => Direction::ToOfficial,
            Direction::ToOfficial => Direction::ToOther,
        }
    }
}

/// Names between the official code of a model and another library.
#[derive(Clone, Debug)]
pub struct KeyMap {
    name: String,
    rules: Vec<Rule>,
}

/// A key map that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyMapError {
    /// A rule that does not follow the language.
    #[error("key map {map:?}, rule {official:?} -> {other:?}: {what}")]
    Rule {
        /// Name of the map.
        map: String,
        /// Official side of the rule.
        official: String,
        /// Other side of the rule.
        other: String,
        /// What is wrong.
        what: String,
    },
    /// Two names become one.
    #[error("key map {map:?} gives {first:?} and {second:?} the same name {name:?}")]
    Collision {
        /// Name of the map.
        map: String,
        /// One of the old names.
        first: String,
        /// The other old name.
        second: String,
        /// The new name of both.
        name: String,
    },
    /// The way back leads elsewhere.
    #[error("key map {map:?} takes {key:?} to {there:?} and that back to {back:?}")]
    OneWay {
        /// Name of the map.
        map: String,
        /// The old name.
        key: String,
        /// The new name.
        there: String,
        /// Where the new name leads back to.
        back: String,
    },
}

impl KeyMap {
    /// Compiles rules `(official, other)`.
    ///
    /// # Errors
    /// [`KeyMapError::Rule`] for a malformed rule.
    pub fn new(name: &str, rules: &[(&str, &str)]) -> Result<KeyMap, KeyMapError> {
        let compile = |(official, other): &(&str, &str)| {
            Rule::new(official, other).map_err(|what| KeyMapError::Rule {
                map: name.into(),
                official: (*official).into(),
                other: (*other).into(),
                what,
            })
        };
        Ok(KeyMap {
            name: name.into(),
            rules: rules.iter().map(compile).collect::<Result<_, _>>()?,
        })
    }

    /// Name of the map, usually of the other library.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The new name of one tensor.
    pub fn rename(&self, key: &str, direction: Direction) -> String {
        let renamed = self
            .rules
            .iter()
            .find_map(|rule| rule.apply(key, direction));
        renamed.unwrap_or_else(|| key.into())
    }

    /// The new names of all tensors of a model or file, in order.
    ///
    /// # Errors
    /// [`KeyMapError::Collision`] when two get one name, [`KeyMapError::OneWay`] when the way back differs.
    pub fn rename_all(
        &self,
        keys: &[&str],
        direction: Direction,
    ) -> Result<Vec<String>, KeyMapError> {
        let mut origin = HashMap::new();
        let mut renamed = Vec::with_capacity(keys.len());
        for key in keys {
            let there = self.rename(key, direction);
            let back = self.rename(&there, direction.back());
            if back != *key {
                return Err(KeyMapError::OneWay {
                    map: self.name.clone(),
                    key: (*key).into(),
                    there,
                    back,
                });
            }
            if let Some(first) = origin.insert(there.clone(), *key) {
                let (first, second) = (first.into(), (*key).into());
                return Err(KeyMapError::Collision {
                    map: self.name.clone(),
                    first,
                    second,
                    name: there,
                });
            }
            renamed.push(there);
        }
        Ok(renamed)
    }

    /// The map under which the keys of a file fit a model's official names best; `None` when none does better
    /// than leaving them as they are.
    pub fn detect<'m>(maps: &'m [KeyMap], keys: &[&str], wanted: &[&str]) -> Option<&'m KeyMap> {
        let wanted: HashSet<_> = wanted.iter().copied().collect();
        let plain = keys.iter().filter(|key| wanted.contains(*key)).count();
        let fit = |map: &KeyMap| {
            keys.iter()
                .filter(|key| wanted.contains(&*map.rename(key, Direction::ToOfficial)))
                .count()
        };
        let scored = maps
            .iter()
            .map(|map| (fit(map), map))
            .filter(|(score, _)| *score > plain);
        // The first of equals, where max_by_key would give the last.
        scored
            .reduce(|best, next| if next.0 > best.0 { next } else { best })
            .map(|(_, map)| map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{ToOfficial, ToOther};

    fn map(rules: &[(&str, &str)]) -> KeyMap {
        KeyMap::new("test", rules).unwrap()
    }

    #[test]
    fn numbers_are_captured_in_their_range_and_shifted() {
        let map = map(&[(
            "blocks{i:2..3}.{j:3..}.{rest}",
            "stages.{i-1}.blocks.{j-3}.{rest}",
        )]);
        assert_eq!(
            map.rename("blocks2.4.conv.weight", ToOther),
            "stages.1.blocks.1.conv.weight"
        );
        assert_eq!(
            map.rename("stages.1.blocks.1.conv.weight", ToOfficial),
            "blocks2.4.conv.weight"
        );
        for unchanged in [
            "blocks1.4.w",
            "blocks4.4.w",
            "blocks2.2.w",
            "blocks2.04.w",
            "blocks2.4.",
            "xblocks2.4.w",
        ] {
            assert_eq!(map.rename(unchanged, ToOther), unchanged);
        }
        for unchanged in [
            "stages.0.blocks.1.w",
            "stages.3.blocks.1.w",
            "stages.01.blocks.1.w",
            "stages.99999999999999999999.blocks.1.w",
        ] {
            assert_eq!(map.rename(unchanged, ToOfficial), unchanged);
        }
    }

    #[test]
    fn text_may_stand_in_the_middle() {
        let map = map(&[("{head}.attn.qkv.{tail}", "{head}.attn.to_qkv.{tail}")]);
        assert_eq!(
            map.rename("a.b.attn.qkv.bias", ToOther),
            "a.b.attn.to_qkv.bias"
        );
        assert_eq!(
            map.rename("a.b.attn.to_qkv.bias", ToOfficial),
            "a.b.attn.qkv.bias"
        );
    }

    #[test]
    fn the_first_rule_that_fits_wins() {
        let map = map(&[
            ("a.{i:0..0}.{rest}", "first.{i}.{rest}"),
            ("a.{rest}", "second.{rest}"),
        ]);
        assert_eq!(map.rename("a.0.w", ToOther), "first.0.w");
        assert_eq!(map.rename("a.1.w", ToOther), "second.1.w");
    }

    #[test]
    fn malformed_rules_say_what_is_wrong() {
        for (official, other, says) in [
            ("a.{i", "b", "never closed"),
            ("a}", "b", "\"}\""),
            ("a.{}", "b.{}", "name"),
            ("a.{i:3..1}", "b.{i}", "range"),
            ("a.{i:x..}", "b.{i}", "range"),
            ("a.{i:0..}.{i:0..}", "b.{i}", "twice"),
            ("a.{i:0..}", "b", "lacks"),
            ("a", "b.{i}", "unknown"),
            ("a.{rest}", "b.{rest+1}", "text"),
            ("a.{i:0..}", "b.{i-1}", "below 0"),
            ("a.{i:0..}{j:0..}", "b.{i}.{j}", "stand together"),
            ("{a}.{b}.{c}", "{a}.{b}.{c}", "two"),
            ("a.{i+1}", "b.{i}", "official"),
        ] {
            let error = KeyMap::new("m", &[(official, other)])
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{official} -> {other}: {error}");
        }
    }

    #[test]
    fn maps_that_lose_names_are_refused() {
        let lossy = map(&[("a.{rest}", "b.{rest}")]);
        assert!(matches!(
            lossy.rename_all(&["b.w"], ToOther),
            Err(KeyMapError::OneWay { .. })
        ));
        assert!(matches!(
            lossy.rename_all(&["a.w", "a.w"], ToOther),
            Err(KeyMapError::Collision { .. })
        ));
        assert_eq!(
            lossy.rename_all(&["a.w", "c.w"], ToOther).unwrap(),
            ["b.w", "c.w"]
        );
    }

    #[test]
    fn the_best_map_is_detected() {
        let maps = [
            map(&[("a.{rest}", "x.{rest}")]),
            map(&[("a.{rest}", "y.{rest}")]),
        ];
        let wanted = ["a.w", "a.b", "c"];
        let found =
            |keys: &[&str]| KeyMap::detect(&maps, keys, &wanted).map(|m| m.rename("a.w", ToOther));
        assert_eq!(found(&["a.w", "a.b", "c"]), None);
        assert_eq!(found(&["x.w", "x.b", "c"]), Some("x.w".into()));
        assert_eq!(found(&["y.w", "y.b", "c"]), Some("y.w".into()));
        assert_eq!(found(&["q.w"]), None);
    }
}
