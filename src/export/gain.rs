//! Formula weights under which a comparison of logits says something.

use super::Error;
use super::rounding::{Nudge, apart, nudge};
use super::verify::{GOOD_SPREAD, HALF_ROUNDING, LEAST_SPREAD, ROUNDING, SEED, spread};
use tch::{Kind, Tensor};
use zoo_runtime::{Precision, Session};

/// Gains to try: spiking nets are silent at small ones, deep nets without norms drown at large ones.
pub const GAINS: [f64; 10] = [0.7, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 4.0, 8.0];

/// Nudges of a probe: fewer than of a verification, they are spent at every gain.
const NUDGES: usize = 2;

/// The formula's weights that suit a model best, opened.
pub struct Chosen {
    /// With these weights.
    pub session: Session,
    /// `formula:zoo:GAIN`.
    pub weights: String,
}

/// Opens the model with the formula's weights at the first of [`GAINS`] at which the logits of `probe`'s inputs are well apart
/// and well within what a file is allowed of float64's, also when the input changes by a millionth (a thousandth in half
/// precision): weights that amplify rounding can not tell a wrong file from a right one. Where there is no such gain, the one
/// with the fewest inputs that rounding moves among those that tell inputs apart at all. `None` where none does.
///
/// # Errors
/// What `open` and `probe` (a batch of at least two inputs) give; the model does not run.
pub fn choose<E: From<Error>>(
    half: bool,
    open: impl Fn(&str) -> Result<Session, E>,
    probe: impl Fn(&Session) -> Result<Tensor, E>,
) -> Result<Option<Chosen>, E> {
    let needs = Needs::of(half);
    let mut best: Option<(usize, Chosen)> = None;
    let mut inputs: Option<Tensor> = None;
    for gain in GAINS {
        let weights = format!("formula:zoo:{gain}");
        let session = open(&weights)?;
        let x = match &mut inputs {
            Some(x) => &*x,
            none => none.insert(probe(&session)?),
        };
        let logits = logits(&session, x)?;
        let spread = spread(&logits);
        if spread.is_nan() || spread < needs.spread {
            continue;
        }
        let unsteady = unsteady(&session, x, &logits, &needs)?;
        let steady_before = best.as_ref().is_some_and(|(n, _)| *n == 0);
        if best.as_ref().is_none_or(|(fewest, _)| unsteady < *fewest) {
            best = Some((unsteady, Chosen { session, weights }));
        }
        let done = unsteady == 0 && spread >= needs.good_spread;
        // Larger gains only amplify more.
        if done || (steady_before && unsteady > 0) {
            break;
        }
    }
    Ok(best.map(|(_, chosen)| chosen))
}

fn logits(session: &Session, x: &Tensor) -> Result<Tensor, Error> {
    Ok(session.logits(x)?.to_kind(Kind::Double))
}

/// Of the logits' scale.
struct Needs {
    /// How much its input changes, relative to itself.
    nudge: f64,
    /// How far different inputs must be apart at least.
    spread: f64,
    /// How far they should be apart.
    good_spread: f64,
    /// How far rounding may move an input.
    steady: f64,
}

impl Needs {
    fn of(half: bool) -> Needs {
        let (tolerance, good) = match half {
            true => (HALF_ROUNDING, LEAST_SPREAD),
            false => (ROUNDING, GOOD_SPREAD),
        };
        Needs {
            nudge: Nudge::of(half).first,
            // A verification sees more inputs, which are further apart.
            spread: LEAST_SPREAD / 2.0 * tolerance,
            good_spread: good * tolerance,
            steady: tolerance / 4.0,
        }
    }
}

/// How many of the inputs, whose logits are given, rounding moves by more than the model needs to be steady.
fn unsteady(session: &Session, x: &Tensor, given: &Tensor, needs: &Needs) -> Result<usize, Error> {
    let exact = session.in_precision(Precision::F64)?.logits(x)?;
    let within = |logits: &Tensor| apart(logits, &exact).le(needs.steady);
    // What is not a number does not stay within the limit.
    let mut steady = exact
        .isfinite()
        .all_dim(1, false)
        .logical_and(&within(given));
    tch::manual_seed(SEED);
    for _ in 0..NUDGES {
        let nudged = logits(session, &nudge(x, needs.nudge))?;
        steady = steady.logical_and(&within(&nudged));
    }
    let steady = steady.sum(Kind::Int64).int64_value(&[]);
    Ok((x.size()[0] - steady) as usize)
}
