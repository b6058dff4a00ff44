//! Holding an ONNX file to what libtorch computes.

use super::rounding::{OwnRounding, apart, decides, explained};
use super::{Error, Exporter, ImageBatches};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::{Kind, Tensor};
use zoo_runtime::{Engine, EngineError, OnnxFile, OnnxOptions, OrtSession, Precision, Session};

/// Batches of random input that a file is held to libtorch on.
const BATCHES: [i64; 4] = [1, 2, 5, 8];

/// Of these, those that are run whatever the budget is: two sizes, so that a batch that was baked in shows.
const LEAST_BATCHES: usize = 2;

/// Of the random input: the same file gives the same figures again.
pub(super) const SEED: i64 = 5;

/// What is allowed in float32, of the largest logit: rounding.
pub(super) const ROUNDING: f64 = 1e-4;

/// What is allowed in half precision.
pub(super) const HALF_ROUNDING: f64 = 2e-2;

/// The largest number of half precision.
const LARGEST_HALF: f64 = 65504.0;

/// Of the logits' scale: where different inputs' logits are nearer than this many tolerances, nothing was compared.
pub(super) const LEAST_SPREAD: f64 = 10.0;

/// The same for weights that are chosen: well beyond the least.
pub(super) const GOOD_SPREAD: f64 = 100.0;

/// How far ONNX Runtime's logits are from libtorch's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Largest difference of a logit, relative to the largest logit of its batch, among inputs where no decision fell otherwise.
    pub max_relative_difference: f64,
    /// What was allowed.
    pub tolerance: f64,
    /// Batches of random input: fewer where the budget was used up.
    pub random_batches: Vec<i64>,
    /// Inputs compared, random ones and images.
    pub inputs: usize,
    /// Inputs of a model with hard decisions (thresholds of spikes, the best of many) that differ by more than the tolerance,
    /// but by no more than twice of what rounding moves libtorch's own logits on such batches: from float64 to float32, or when
    /// the input changes by a millionth (by a thousandth, where the file is in half precision), then by about a tenth of the
    /// tolerance.
    pub decided_otherwise: usize,
    /// The largest difference of such an input.
    pub max_decided_difference: f64,
    /// How far that moved libtorch's own logits, at most; 0 where nothing had to be explained.
    pub own_rounding: f64,
    /// Images among the inputs.
    pub images: usize,
    /// Images whose likeliest class is the same.
    pub same_top1: usize,
    /// Inputs within the tolerance whose likeliest class is another one nevertheless.
    pub other_top1: usize,
    /// How far the logits of different inputs are apart, relative to the largest: what the file could have got wrong.
    pub spread: f64,
    /// Values inside that half precision has no numbers for, among those that the model shows; empty where the logits are finite.
    pub overflowing: Vec<String>,
}

impl Verification {
    /// Whether the file computes what the model does; `Err` says what speaks against it.
    pub fn judge(&self) -> Result<(), String> {
        let Verification {
            tolerance, spread, ..
        } = self;
        if self.max_relative_difference.is_nan() {
            let values = match self.overflowing.as_slice() {
                [] => String::new(),
                named => format!(
                    ", and half precision has no numbers for these values inside: {}",
                    named.join(", ")
                ),
            };
            return Err(format!("ONNX Runtime's logits are no numbers{values}"));
        }
        if self.max_relative_difference > *tolerance {
            let own = match self.own_rounding {
                0.0 => String::new(),
                own => format!(" (rounding moves libtorch's own by {own:.1e})"),
            };
            return Err(format!(
                "ONNX Runtime's logits are {:.1e} of the largest apart from libtorch's, and {tolerance:.1e} is allowed{own}",
                self.max_relative_difference
            ));
        }
        if self.decided_otherwise > 0 && self.decided_otherwise == self.inputs {
            return Err(format!(
                "a decision fell otherwise on all {} inputs, so that nothing was compared: give weights that decide less closely \
                 (--weights FILE, or formula:SALT:GAIN with another gain)",
                self.inputs
            ));
        }
        // In half precision, two classes within the tolerance of each other change places.
        if self.other_top1 > 0 && *tolerance <= ROUNDING {
            return Err(format!(
                "the likeliest class of {} inputs is another one in ONNX Runtime",
                self.other_top1
            ));
        }
        if spread.is_nan() || *spread < LEAST_SPREAD * tolerance {
            return Err(format!(
                "the logits of different inputs are only {spread:.1e} of the largest apart, so that equal logits prove nothing: \
                 give weights that tell inputs apart (--weights FILE, or formula:SALT:GAIN with another gain)"
            ));
        }
        Ok(())
    }
}

impl Verification {
    /// Counts an input whose logits are apart by no more than rounding, or for which nothing but a decision can account.
    fn count(&mut self, input: Compared) {
        self.inputs += 1;
        let Compared { apart, same_top1 } = input;
        if apart > self.tolerance && explained(apart, self.own_rounding) {
            self.decided_otherwise += 1;
            self.max_decided_difference = self.max_decided_difference.max(apart);
            return;
        }
        // Not `max`, which would lose what is not a number.
        if apart.is_nan() || apart > self.max_relative_difference {
            self.max_relative_difference = apart;
        }
        self.other_top1 += usize::from(!same_top1);
    }
}

/// The logits of one input.
#[derive(Debug, Clone, Copy)]
struct Compared {
    /// Largest difference, relative to the largest logit of the batch.
    apart: f64,
    same_top1: bool,
}

/// Random inputs to probe the formula's weights with, the same ones at every call.
pub fn random_inputs(session: &Session, batch: i64) -> Tensor {
    tch::manual_seed(SEED);
    random(session, batch)
}

fn random(session: &Session, batch: i64) -> Tensor {
    Tensor::randn(session.input_shape(batch), (Kind::Float, tch::Device::Cpu))
}

/// How far the logits of a batch are apart, relative to the largest.
pub(super) fn spread(logits: &Tensor) -> f64 {
    let apart = (logits.amax([0i64], false) - logits.amin([0i64], false)).max();
    apart.double_value(&[]) / logits.abs().max().double_value(&[])
}

/// Runs a file beside the model: on random input at several batches, then on batches of images.
pub(super) fn verify(
    exporter: &Exporter<'_>,
    path: &Path,
    images: &mut ImageBatches<'_>,
) -> Result<Verification, Error> {
    let Exporter {
        session,
        settings,
        trace,
    } = exporter;
    let file = OnnxFile::read(path).map_err(EngineError::from)?;
    let options = OnnxOptions {
        precision: Precision::F32,
        threads: session.options().threads,
        ..OnnxOptions::default()
    };
    let mut verifier = Verifier {
        session,
        ort: OrtSession::open(file, &options).map_err(EngineError::from)?,
        decides: decides(&trace.graph),
        found: Verification {
            max_relative_difference: 0.0,
            tolerance: if settings.half {
                HALF_ROUNDING
            } else {
                ROUNDING
            },
            random_batches: Vec::new(),
            inputs: 0,
            decided_otherwise: 0,
            max_decided_difference: 0.0,
            own_rounding: 0.0,
            images: 0,
            same_top1: 0,
            other_top1: 0,
            spread: 0.0,
            overflowing: Vec::new(),
        },
        half: settings.half,
        own: OwnRounding::new(session, settings.half),
        compared: Vec::new(),
    };
    tch::manual_seed(SEED);
    // Drawn before anything is nudged: the inputs do not depend on what rounding did to them.
    let drawn = BATCHES.map(|batch| (batch, random(session, batch)));
    let begun = Instant::now();
    let used_up = || {
        settings
            .budget
            .is_some_and(|budget| begun.elapsed() >= budget)
    };
    for (i, (batch, x)) in drawn.into_iter().enumerate() {
        if i >= LEAST_BATCHES && used_up() {
            break;
        }
        verifier.hold(&x)?;
        verifier.found.random_batches.push(batch);
    }
    while let Some(x) = images.next().filter(|_| !used_up()) {
        let x = x.map_err(Error::Image)?;
        let same = verifier.hold(&x)?;
        verifier.found.images += x.size()[0] as usize;
        verifier.found.same_top1 += same;
    }
    Ok(verifier.judged())
}

struct Verifier<'a> {
    session: &'a Session,
    ort: OrtSession,
    /// Whether rounding can flip decisions inside the model.
    decides: bool,
    half: bool,
    own: OwnRounding<'a>,
    /// Every input so far; judged at the end, when libtorch's own jumps are known.
    compared: Vec<Compared>,
    found: Verification,
}

impl Verifier<'_> {
    /// Compares the logits of a batch; gives how many inputs have the same likeliest class.
    fn hold(&mut self, x: &Tensor) -> Result<usize, Error> {
        let expected = self.session.logits(x)?.to_kind(Kind::Double);
        let found = self.ort.logits(x)?;
        let found = found.to_kind(Kind::Double);
        if found.size() != expected.size() {
            return Err(Error::Shape {
                model: self.session.variant().name,
                expected: expected.size(),
                found: found.size(),
            });
        }
        let apart = numbers(&apart(&found, &expected));
        let top = |t: &Tensor| t.argmax(1, false);
        let same = numbers(&top(&found).eq_tensor(&top(&expected)).to_kind(Kind::Double));
        if x.size()[0] > 1 {
            self.found.spread = self.found.spread.max(spread(&expected));
        }
        if self.half && self.found.overflowing.is_empty() && apart.iter().any(|d| d.is_nan()) {
            self.found.overflowing = self.overflowing(x)?;
        }
        let worst = apart.iter().copied().fold(0.0, f64::max);
        if self.decides && worst > self.found.tolerance {
            self.own.seek(x, &expected, worst)?;
        }
        let each = apart.iter().zip(&same);
        self.compared.extend(each.map(|(&apart, &same)| Compared {
            apart,
            same_top1: same == 1.0,
        }));
        Ok(same.iter().filter(|s| **s == 1.0).count())
    }

    fn judged(mut self) -> Verification {
        self.found.own_rounding = self.own.moved;
        for input in self.compared {
            self.found.count(input);
        }
        self.found
    }

    /// The values that the model shows and that are beyond half precision, with their largest numbers.
    fn overflowing(&self, x: &Tensor) -> Result<Vec<String>, Error> {
        let seen = self.session.record(x)?;
        let largest = seen
            .into_iter()
            .filter(|(_, t)| t.numel() > 0)
            .map(|(name, t)| (name, t.to_kind(Kind::Double).abs().max().double_value(&[])));
        Ok(largest
            .filter(|(_, largest)| *largest > LARGEST_HALF)
            .map(|(name, largest)| format!("{name} (up to {largest:.1e})"))
            .collect())
    }
}

fn numbers(t: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(&t.contiguous()).unwrap_or_default()
}

/// Where a file lies until it is verified.
pub(super) fn beside(path: &Path) -> PathBuf {
    path.with_extension("unverified.onnx")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Verification {
        Verification {
            max_relative_difference: 1e-6,
            tolerance: ROUNDING,
            random_batches: BATCHES.to_vec(),
            inputs: 16,
            decided_otherwise: 0,
            max_decided_difference: 0.0,
            own_rounding: 0.0,
            images: 0,
            same_top1: 0,
            other_top1: 0,
            spread: 1.0,
            overflowing: Vec::new(),
        }
    }

    /// What must fail, and the word that says why.
    #[test]
    fn a_file_fails_for_each_reason() {
        assert_eq!(found().judge(), Ok(()));
        type Change = fn(&mut Verification);
        let changes: [(Change, &str); 6] = [
            (|v| v.max_relative_difference = 2.0 * ROUNDING, "apart"),
            (|v| v.max_relative_difference = f64::NAN, "no numbers"),
            (|v| v.other_top1 = 1, "likeliest"),
            (|v| v.spread = 9.0 * ROUNDING, "prove nothing"),
            (|v| v.spread = f64::NAN, "prove nothing"),
            (|v| v.decided_otherwise = v.inputs, "nothing was compared"),
        ];
        for (change, reason) in changes {
            let mut wrong = found();
            change(&mut wrong);
            let told = wrong.judge().unwrap_err();
            assert!(told.contains(reason), "{told}");
        }
    }

    /// Half precision can not tell classes apart that are within its tolerance: said, and no failure.
    #[test]
    fn classes_change_places_in_half_precision() {
        let half = Verification {
            tolerance: HALF_ROUNDING,
            other_top1: 1,
            ..found()
        };
        assert_eq!(half.judge(), Ok(()));
    }

    /// A jump counts as a decision only where libtorch's own logits jump about as far.
    #[test]
    fn a_jump_needs_an_explanation() {
        let jump = |apart| Compared {
            apart,
            same_top1: false,
        };
        let mut v = found();
        v.own_rounding = 0.3;
        v.count(jump(0.5));
        assert_eq!((v.decided_otherwise, v.other_top1), (1, 0));
        assert_eq!((v.max_decided_difference, v.judge()), (0.5, Ok(())));
        v.count(jump(0.7));
        assert_eq!((v.decided_otherwise, v.max_relative_difference), (1, 0.7));
        let told = v.judge().unwrap_err();
        assert!(told.contains("own by 3.0e-1"), "{told}");
        let mut v = found();
        v.count(jump(f64::NAN));
        assert!(v.judge().is_err());
    }
}
