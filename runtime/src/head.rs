//! Head surgery: a checkpoint under a head of another width, or under none.

use std::collections::BTreeSet;
use tch::{Kind, Tensor, nn};
use zoo_backbones::{Backbone, BuildOptions, Variant};
use zoo_ops::without_start;
use zoo_weights::LoadReport;

/// The tensors of a model's head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadTensors {
    /// Those whose shape follows the number of classes, by name.
    by_classes: BTreeSet<String>,
}

impl HeadTensors {
    /// Found by building the network twice: what changes with the number of classes is the head.
    pub fn of(variant: &Variant, options: &BuildOptions) -> HeadTensors {
        let shapes = |classes| {
            let store = nn::VarStore::new(tch::Device::Cpu);
            let _model = without_start(|| build(variant, options, classes, &store));
            let tensors = store.variables().into_iter();
            tensors
                .map(|(name, t)| (name, t.size()))
                .collect::<BTreeSet<_>>()
        };
        let (narrow, wide) = (shapes(2), shapes(3));
        let by_classes = narrow.difference(&wide);
        HeadTensors {
            by_classes: by_classes.map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Whether there is no head, as in a network for dense prediction.
    pub fn is_empty(&self) -> bool {
        self.by_classes.is_empty()
    }

    /// All that only the logits read: also a norm or a hidden layer between the features and the classes.
    ///
    /// Found by trying: of the tensors in the same modules, those that leave the features alone when they are not numbers.
    pub fn behind_features(&self, variant: &Variant, options: &BuildOptions) -> BTreeSet<String> {
        let store = nn::VarStore::new(tch::Device::Cpu);
        let model = build(variant, options, 2, &store);
        let channels = model.input_channels();
        let shape = model.input_form().shape(1, channels, options.size);
        let x = Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
        let read = |tensor: &mut Tensor| {
            let kept = tensor.copy();
            let _ = tensor.fill_(f64::NAN);
            let finite = model.features(&x).isfinite().all();
            tensor.copy_(&kept);
            finite.int64_value(&[]) == 0
        };
        let mut head = self.by_classes.clone();
        tch::no_grad(|| {
            for (name, mut tensor) in store.variables() {
                if self.shares_module(&name)
                    && !self.by_classes.contains(&name)
                    && !read(&mut tensor)
                {
                    head.insert(name);
                }
            }
        });
        head
    }

    fn shares_module(&self, name: &str) -> bool {
        let module = |name: &str| name.split_once('.').map(|(module, _)| module.to_owned());
        let wanted = module(name);
        wanted.is_some() && self.by_classes.iter().any(|head| module(head) == wanted)
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

fn build(
    variant: &Variant,
    options: &BuildOptions,
    classes: i64,
    store: &nn::VarStore,
) -> Box<dyn Backbone> {
    let options = BuildOptions {
        classes,
        ..*options
    };
    (variant.build)(&store.root(), &options)
}
