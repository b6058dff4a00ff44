//! Multiply-accumulates that authors report, as data. What a model really computes is counted from its graph.

use crate::Variant;

/// A published number of multiply-accumulates, for one image of the published size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportedMacs {
    /// In units of 10^9, with the digits that were published. Papers call it FLOPs or GMACs.
    pub giga: f64,
    /// Who published it, and where.
    pub source: &'static str,
}

impl Variant {
    /// What its authors report; `None` where they do not.
    pub fn reported_macs(&self) -> Option<ReportedMacs> {
        let (_, giga, source) = MACS.iter().find(|(names, ..)| names.contains(&self.name))?;
        Some(ReportedMacs {
            giga: *giga,
            source,
        })
    }
}

const SHVIT: &str = "SHViT, CVPR 2024, table 2 (FLOPs)";
const BIFORMER: &str = "rayleizhu/BiFormer README (FLOPs)";
const OVERLOCK: &str = "LMMMEng/OverLoCK README (FLOPs)";
const KARAT: &str = "KArAt, arXiv 2503.10632v3 (GFLOPs)";
const TIMM: &str = "timm, GMACs of its model tables";

static MACS: &[(&[&str], f64, &str)] = &[
    (&["shvit-s1"], 0.241, SHVIT),
    (&["shvit-s2"], 0.366, SHVIT),
    (&["shvit-s3"], 0.601, SHVIT),
    (&["shvit-s4"], 0.986, SHVIT),
    (&["biformer-t"], 2.2, BIFORMER),
    (&["biformer-s"], 4.5, BIFORMER),
    (&["biformer-b"], 9.8, BIFORMER),
    (&["biformer-stl", "biformer-stl-nchw"], 4.6, BIFORMER),
    (&["overlock-xt"], 2.6, OVERLOCK),
    (&["overlock-t"], 5.5, OVERLOCK),
    (&["overlock-s"], 9.7, OVERLOCK),
    (&["overlock-b"], 16.7, OVERLOCK),
    (&["karat-tiny-g3b", "karat-tiny-g3u"], 1.425, KARAT),
    (&["karat-small-g3b", "karat-small-g3u"], 4.941, KARAT),
    (&["karat-base-g1b", "karat-base-g1u"], 17.847, KARAT),
    (&["halonet-h1"], 3.0, TIMM),
    (&["halonet-26t"], 3.19, TIMM),
    (&["halonet-50ts"], 5.3, TIMM),
    (&["sehalonet-33ts"], 3.55, TIMM),
    (&["eca-halonext-26ts"], 2.44, TIMM),
    (&["haloregnetz-b"], 1.97, TIMM),
    (&["halo2botnet-50ts", "lamhalobotnet-50ts"], 5.02, TIMM),
    (&["deit-t", "vit-t"], 1.26, TIMM),
    (&["deit-s", "vit-s"], 4.61, TIMM),
    (&["deit-b", "vit-b"], 17.58, TIMM),
    (&["mixer-b16", "mixer-b16-miil"], 12.62, TIMM),
    (&["resnet-50", "resnet-50-tv2", "resnet-50-tv"], 4.11, TIMM),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_variant_and_stands_once() {
        let mut seen = std::collections::BTreeSet::new();
        for name in MACS.iter().flat_map(|(names, ..)| *names) {
            assert_eq!(crate::find(name).map(|v| v.name), Some(*name));
            assert!(seen.insert(name), "{name} stands twice");
        }
    }
}
