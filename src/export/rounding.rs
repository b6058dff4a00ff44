//! How far rounding moves a model's own logits: what a file with the same decisions may differ by.

use tch::{Kind, Tensor};
use zoo_graph::Graph;
use zoo_runtime::{Precision, Session, SessionError};

/// How many times a model runs on inputs that differ by a [`Nudge::first`] before its jumps count as seen.
const NUDGES: usize = 4;

/// How many times it does in a verification at most, while a jump is not explained.
const MOST_NUDGES: usize = 64;

/// How much inputs are changed, relative to each number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nudge {
    /// As small as rounding is: eight units in the last place of float32, two of float16.
    pub first: f64,
    /// Where that explains nothing: spikes do not pass on what does not flip them, so that such a nudge ends at the first
    /// threshold, while ONNX Runtime rounds in every layer. A tenth of the tolerance.
    wider: f64,
}

impl Nudge {
    pub(super) fn of(half: bool) -> Nudge {
        match half {
            false => Nudge {
                first: 1e-6,
                wider: 1e-5,
            },
            true => Nudge {
                first: 1e-3,
                wider: 2e-3,
            },
        }
    }
}

/// Jumps may be this many times as far as those seen of libtorch: a handful of samples rarely shows the furthest.
const JUMPS: f64 = 2.0;

/// How far each input's logits are from those of `base` at most, relative to its largest: [B].
pub(super) fn apart(logits: &Tensor, base: &Tensor) -> Tensor {
    (logits - base).abs().amax([1i64], false) / base.abs().max()
}

/// The inputs, each number changed by about this much of it.
pub(super) fn nudge(x: &Tensor, by: f64) -> Tensor {
    x * (x.randn_like() * by + 1.0)
}

/// Operators whose output jumps where their input passes a threshold or two of its numbers change places.
const DECISIONS: [&str; 15] = [
    "topk", "sort", "argsort", "argmax", "argmin", "ge", "gt", "le", "lt", "eq", "ne", "sign",
    "floor", "ceil", "round",
];

/// Whether rounding can flip a decision inside the model.
pub(super) fn decides(graph: &Graph) -> bool {
    let kinds = graph.nodes.iter().map(|node| node.kind.as_str());
    kinds
        .map(|kind| kind.trim_start_matches("aten::"))
        .any(|name| DECISIONS.contains(&name))
}

/// Whether a jump of libtorch's own logits by `own` accounts for logits that are apart by this much.
pub(super) fn explained(apart: f64, own: f64) -> bool {
    apart <= JUMPS * own
}

/// What rounding did to libtorch's own logits.
pub(super) struct OwnRounding<'a> {
    session: &'a Session,
    nudge: Nudge,
    /// The model in float64, opened when it is first needed.
    exact: Option<Session>,
    nudged: usize,
    /// The furthest that it moved them, of the largest logit.
    pub moved: f64,
}

impl<'a> OwnRounding<'a> {
    pub(super) fn new(session: &'a Session, half: bool) -> OwnRounding<'a> {
        OwnRounding {
            session,
            nudge: Nudge::of(half),
            exact: None,
            nudged: 0,
            moved: 0.0,
        }
    }

    /// Looks for a jump that accounts for logits this far apart: from float64 to float32, and when the input changes a
    /// little, until one is seen or enough was tried. Jumps seen of earlier inputs count.
    pub(super) fn seek(
        &mut self,
        x: &Tensor,
        expected: &Tensor,
        worst: f64,
    ) -> Result<(), SessionError> {
        if explained(worst, self.moved) {
            return Ok(());
        }
        let exact = match &mut self.exact {
            Some(exact) => exact,
            none => none.insert(self.session.in_precision(Precision::F64)?),
        };
        let logits = exact.logits(x)?;
        self.see(&logits, expected);
        let mut here = 0;
        while here < NUDGES || (self.nudged < MOST_NUDGES && !explained(worst, self.moved)) {
            let by = match here < NUDGES {
                true => self.nudge.first,
                false => self.nudge.wider,
            };
            let logits = self.session.logits(&nudge(x, by))?;
            self.see(&logits, expected);
            here += 1;
            self.nudged += 1;
        }
        Ok(())
    }

    fn see(&mut self, logits: &Tensor, expected: &Tensor) {
        let most = apart(&logits.to_kind(Kind::Double), expected).max();
        self.moved = self.moved.max(most.double_value(&[]));
    }
}
