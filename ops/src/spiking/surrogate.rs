//! Surrogate gradients: a step forward, a smooth slope backward.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;
use tch::{Kind, Tensor, no_grad};

/// The form of a surrogate: when a spike is fired and the slope that stands for the step's derivative.
///
/// z is the potential above the threshold, a the surrogate's alpha, H the step. Names are STEP's and BrainCog's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SurrogateShape {
    /// Fires at z >= 0; slope a s(a z) (1 - s(a z)) with the logistic function s. `Sigmoid_Grad`, `SigmoidGrad`, `HeavisideSigmoid`.
    Sigmoid,
    /// Fires at z > 0; slope a - a^2 |z| within 1/a, else 0. `QGate_Grad`, `QGateGrad`.
    QuadraticGate,
    /// Fires at z > 0; slope (a / 2) / (1 + (pi a z / 2)^2). `AtanGrad`.
    Atan,
    /// Fires at z > 0; slope 1 for |z| < 1/a, else 0. `GateGrad`.
    Gate,
    /// Fires at z >= 0; slope 1/a for |z| <= a/2, else 0. CLIF's `Rectangle`.
    Rectangle,
    /// Fires at z > 0; slope 1 for |z| < 1/2, else 0. GLIF's `SpikeAct_extended`, `BackEIGateGrad`.
    Window,
    /// Gives sign(z); slope 1 for |z| < 1/2, else 0. `EIGrad`.
    Sign,
    /// Fires at z >= 0; slope a for z > 0, else 0. `ReLUGrad`.
    Relu,
    /// Gives ceil(clamp(z, -1/2, 9/2)); slope 1 within the clamp, else 0. `RoundGrad`.
    Round,
    /// Fires at z >= 0; slope 1.
    StraightThrough,
    /// Fires at z > 0; the slope is the spike itself. `STDPGrad`.
    Stdp,
}

/// Every shape with its name.
const SHAPES: [(&str, SurrogateShape); 11] = [
    ("sigmoid", SurrogateShape::Sigmoid),
    ("quadratic-gate", SurrogateShape::QuadraticGate),
    ("atan", SurrogateShape::Atan),
    ("gate", SurrogateShape::Gate),
    ("rectangle", SurrogateShape::Rectangle),
    ("window", SurrogateShape::Window),
    ("sign", SurrogateShape::Sign),
    ("relu", SurrogateShape::Relu),
    ("round", SurrogateShape::Round),
    ("straight-through", SurrogateShape::StraightThrough),
    ("stdp", SurrogateShape::Stdp),
];

/// A surrogate and its parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surrogate {
    /// Its form.
    pub shape: SurrogateShape,
    /// Its parameter before any weights are loaded (`act_fun.alpha` in a state_dict).
    pub alpha: f64,
    /// Whether alpha learns: `Atan` and `Relu` have a derivative for it.
    pub trained: bool,
}

/// A text that names no surrogate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no surrogate `{0}`; there are {names} (and NAME:ALPHA)", names = SHAPES.map(|(name, _)| name).join(", "))]
pub struct UnknownSurrogate(String);

impl fmt::Display for Surrogate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SHAPES.iter().find(|(_, shape)| *shape == self.shape);
        write!(f, "{}:{}", name.map_or("", |(name, _)| name), self.alpha)
    }
}

impl FromStr for Surrogate {
    type Err = UnknownSurrogate;

    /// `NAME` or `NAME:ALPHA`.
    fn from_str(text: &str) -> Result<Self, UnknownSurrogate> {
        let (name, alpha) = match text.split_once(':') {
            Some((name, alpha)) => (name, Some(alpha)),
            None => (text, None),
        };
        let unknown = || UnknownSurrogate(text.to_owned());
        let (_, shape) = SHAPES
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(unknown)?;
        let surrogate = Surrogate::new(*shape);
        match alpha.map(str::parse::<f64>) {
            None => Ok(surrogate),
            Some(Ok(alpha)) if alpha.is_finite() && alpha > 0.0 => Ok(surrogate.with_alpha(alpha)),
            Some(_) => Err(unknown()),
        }
    }
}

impl Surrogate {
    /// This shape with its usual alpha: 4 for the sigmoid (as STEP's neurons have it; BrainCog's own is 1), 1 for the
    /// rectangle, 2 for the others.
    pub fn new(shape: SurrogateShape) -> Self {
        let alpha = match shape {
            SurrogateShape::Sigmoid => 4.0,
            SurrogateShape::Rectangle => 1.0,
            _ => 2.0,
        };
        Surrogate {
            shape,
            alpha,
            trained: false,
        }
    }

    /// Every surrogate with its usual alpha.
    pub fn all() -> impl Iterator<Item = Surrogate> {
        SHAPES.iter().map(|(_, shape)| Surrogate::new(*shape))
    }

    /// The same with another alpha.
    pub fn with_alpha(self, alpha: f64) -> Self {
        Surrogate { alpha, ..self }
    }

    /// The same with an alpha that learns.
    pub fn with_trained_alpha(self) -> Self {
        Surrogate {
            trained: true,
            ..self
        }
    }

    /// Whether a potential exactly at the threshold fires.
    pub fn fires_at_threshold(self) -> bool {
        matches!(
            self.shape,
            SurrogateShape::Sigmoid
                | SurrogateShape::Rectangle
                | SurrogateShape::Relu
                | SurrogateShape::StraightThrough
        )
    }

    /// Whether what is fired is 0 or 1.
    pub fn binary(self) -> bool {
        !matches!(self.shape, SurrogateShape::Sign | SurrogateShape::Round)
    }

    /// What is fired at `z`, potentials above the threshold, in the kind of `z`; backward through the surrogate's slope.
    ///
    /// `alpha` is 0-dim. The value is exactly the step's: what carries the gradient adds zero.
    pub fn fire(self, z: &Tensor, alpha: &Tensor) -> Tensor {
        let fired = self.step(&z.detach());
        if !z.requires_grad() && !alpha.requires_grad() {
            return fired;
        }
        let (slope, alpha_slope) = no_grad(|| {
            let (z, alpha) = (z.detach(), alpha.detach());
            (self.slope(&z, &alpha), self.alpha_slope(&z, &alpha))
        });
        let spikes = fired + zero(z) * slope;
        match alpha_slope.filter(|_| alpha.requires_grad()) {
            Some(slope) => spikes + zero(alpha) * slope,
            None => spikes,
        }
    }

    /// Forward only.
    fn step(self, z: &Tensor) -> Tensor {
        match self.shape {
            SurrogateShape::Sign => z.sign(),
            SurrogateShape::Round => z.clamp(-0.5, 4.5).ceil(),
            _ if self.fires_at_threshold() => z.ge(0).to_kind(z.kind()),
            _ => z.gt(0).to_kind(z.kind()),
        }
    }

    /// The derivative that stands for the step's, at each of `z`.
    pub fn slope(self, z: &Tensor, alpha: &Tensor) -> Tensor {
        let as_numbers = |mask: Tensor| mask.to_kind(z.kind());
        match self.shape {
            SurrogateShape::Sigmoid => {
                let s = (z * alpha).sigmoid();
                &s * (-&s + 1) * alpha
            }
            SurrogateShape::QuadraticGate => {
                let inside = as_numbers(z.abs().le_tensor(&alpha.reciprocal()));
                (alpha - z.abs() * (alpha * alpha)) * inside
            }
            SurrogateShape::Atan => self.bell(z, alpha) * alpha / 2,
            SurrogateShape::Gate => as_numbers(z.abs().lt_tensor(&alpha.reciprocal())),
            SurrogateShape::Rectangle => {
                as_numbers(z.abs().le_tensor(&(alpha / 2))) * alpha.reciprocal()
            }
            SurrogateShape::Window | SurrogateShape::Sign => as_numbers(z.abs().lt(0.5)),
            SurrogateShape::Relu => as_numbers(z.gt(0)) * alpha,
            SurrogateShape::Round => as_numbers(z.gt(-0.5).logical_and(&z.lt(4.5))),
            SurrogateShape::StraightThrough => z.ones_like(),
            SurrogateShape::Stdp => as_numbers(z.gt(0)),
        }
    }

    /// The derivative for alpha, where the surrogate defines one.
    fn alpha_slope(self, z: &Tensor, alpha: &Tensor) -> Option<Tensor> {
        match self.shape {
            SurrogateShape::Atan => Some(self.bell(z, alpha) * z / 2),
            SurrogateShape::Relu => Some(z.relu()),
            _ => None,
        }
    }

    /// 1 / (1 + (pi a z / 2)^2).
    fn bell(self, z: &Tensor, alpha: &Tensor) -> Tensor {
        ((z * (alpha * (PI / 2.0))).square() + 1).reciprocal()
    }

    /// The parameter as a tensor beside `z`, for surrogates that stand outside of any state_dict.
    pub fn alpha_beside(self, z: &Tensor) -> Tensor {
        Tensor::from(self.alpha)
            .to_kind(if z.kind() == Kind::Double {
                Kind::Double
            } else {
                Kind::Float
            })
            .to_device(z.device())
    }
}

/// Zero with the gradient of `t`.
pub(super) fn zero(t: &Tensor) -> Tensor {
    t - t.detach()
}

#[cfg(test)]
mod tests;
