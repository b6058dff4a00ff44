//! Head surgery: a checkpoint under a head of another width, or under none.

use std::collections::BTreeSet;
use tch::nn;
use zoo_backbones::{BuildOptions, Variant};
use zoo_weights::{AllowedExtras, LoadReport, Wanted};

/// The tensors of a model's head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadTensors {
    /// Those whose shape follows the number of classes, by name.
    by_classes: BTreeSet<String>,
    /// First segments of their names: what lies below belongs to the head (its norm, its hidden layer).
    modules: BTreeSet<String>,
}

impl HeadTensors {
    /// Found by building the network twice: what changes with the number of classes is the head.
    pub fn of(variant: &Variant, options: &BuildOptions) -> HeadTensors {
        let shapes = |classes| {
            let store = nn::VarStore::new(tch::Device::Cpu);
            let options = BuildOptions {
                classes,
                ..*options
            };
            let _model = (variant.build)(&store.root(), &options);
            let tensors = store.variables().into_iter();
            tensors
                .map(|(name, t)| (name, t.size()))
                .collect::<BTreeSet<_>>()
        };
        let (narrow, wide) = (shapes(2), shapes(3));
        let by_classes: BTreeSet<String> = narrow
            .difference(&wide)
            .map(|(name, _)| name.clone())
            .collect();
        let modules = by_classes
            .iter()
            .filter_map(|name| name.split_once('.'))
            .map(|(module, _)| module.to_owned())
            .collect();
        HeadTensors {
            by_classes,
            modules,
        }
    }

    /// Whether the tensor belongs to the head.
    pub fn contains(&self, name: &str) -> bool {
        let module = name.split_once('.').map(|(module, _)| module);
        self.by_classes.contains(name) || module.is_some_and(|module| self.modules.contains(module))
    }

    /// Lets every tensor of the head be absent, and one of a checkpoint's head be left over.
    pub(crate) fn allow_none(&self, extras: AllowedExtras) -> AllowedExtras {
        let below: Vec<String> = self.modules.iter().map(|m| format!("{m}.*")).collect();
        let all = || below.iter().chain(&self.by_classes).map(String::as_str);
        extras.and_missing(all()).and_unused(all())
    }

    /// What of `wanted` does not belong to the head.
    pub(crate) fn without(&self, wanted: Vec<Wanted>) -> Vec<Wanted> {
        let rest = wanted.into_iter();
        rest.filter(|w| !self.contains(&w.name)).collect()
    }

    /// How many classes the checkpoint's head has, where that is all that does not fit.
    pub(crate) fn other_width(&self, report: &LoadReport) -> Option<usize> {
        let ours = |name: &String| self.by_classes.contains(name);
        let only_head = report.misshapen.iter().all(|m| ours(&m.name));
        let found = report.misshapen.first()?.found.first().copied();
        let same = |m: &zoo_weights::Misshapen| m.found.first().copied() == found;
        (only_head && report.misshapen.iter().all(same))
            .then_some(found)
            .flatten()
    }
}
