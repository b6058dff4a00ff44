//! Gains of formula weights under which models work as trained ones do, as data.

use crate::Variant;

/// Keeps activations in range through the depth of every ordinary network.
const ORDINARY: f64 = 0.7;

impl Variant {
    /// The gain of the formula where weights were not trained. A spiking network is silent at the usual one and would be timed
    /// at no work: its gain is the one of 0.7, 1, 1.2, 1.5, 2, 3, 4 and 8 at which its neurons fire nearest to 15 %, measured
    /// with `zoo energy MODEL --weights formula:zoo:GAIN --limit 2`.
    pub fn formula_gain(&self) -> f64 {
        let spiking = FIRING.iter().find(|(_, names)| names.contains(&self.name));
        spiking.map_or(ORDINARY, |(gain, _)| *gain)
    }
}

static FIRING: &[(f64, &[&str])] = &[
    (
        2.0,
        &[
            "step-qkformer-imagenet-512",
            "step-sdt-cifar-conv2",
            "step-sdt-cifar-repconv",
            "step-spikf-semm-imagenet",
            "step-spikformer-cifar-conv2",
            "step-spikformer-cifar-repconv",
            "step-spikformer-es",
            "step-spikformer-imagenet",
            "step-tim",
        ],
    ),
    (
        3.0,
        &[
            "step-qkformer-cifar",
            "step-qkformer-imagenet",
            "step-qkformer-imagenet-h6",
            "step-sdt-cifar",
            "step-sdt-imagenet",
            "step-spikf-semm-cifar",
            "step-spikformer-cifar",
            "step-spikformer-scifar",
            "step-spikingformer-cifar",
            "step-swformer-cifar",
        ],
    ),
    (
        4.0,
        &[
            "step-sdt-scifar",
            "step-sglformer-cifar",
            "step-spikingresformer-cifar",
        ],
    ),
    (8.0, &["step-spt-modelnet40"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_model_and_every_spiking_model_has_a_gain() {
        let named = || FIRING.iter().flat_map(|(_, names)| names.iter());
        for name in named() {
            assert!(crate::find(name).is_some(), "{name}");
        }
        for variant in crate::variants().filter(|v| v.family == "step") {
            let count = named().filter(|name| **name == variant.name).count();
            assert_eq!(count, 1, "{}", variant.name);
        }
    }
}
