//! Slopes against the functions they are the derivatives of, and what autograd makes of them.

use super::*;
use tch::Device;

/// The function whose derivative the slope is, written without tensors.
fn primitive(shape: SurrogateShape, z: f64, a: f64) -> f64 {
    let clamp = |half: f64| z.clamp(-half, half);
    match shape {
        SurrogateShape::Sigmoid => 1.0 / (1.0 + (-a * z).exp()),
        SurrogateShape::QuadraticGate => {
            let z = clamp(1.0 / a);
            a * z - a * a * z * z.abs() / 2.0
        }
        SurrogateShape::Atan => (PI / 2.0 * a * z).atan() / PI,
        SurrogateShape::Gate => clamp(1.0 / a),
        SurrogateShape::Rectangle => clamp(a / 2.0) / a,
        SurrogateShape::Window | SurrogateShape::Sign => clamp(0.5),
        SurrogateShape::Relu => a * z.max(0.0),
        SurrogateShape::Round => z.clamp(-0.5, 4.5),
        SurrogateShape::StraightThrough => z,
        SurrogateShape::Stdp => z.max(0.0),
    }
}

/// Away from the corners of every shape by more than the difference's width.
fn points() -> Vec<f64> {
    (-60..=60).map(|i| f64::from(i) * 0.0937 + 0.0101).collect()
}

fn gradient(surrogate: Surrogate, points: &[f64], alpha: &Tensor) -> (Tensor, Vec<f64>) {
    let z = Tensor::from_slice(points).set_requires_grad(true);
    let spikes = surrogate.fire(&z, alpha);
    spikes.sum(Kind::Double).backward();
    (spikes.detach(), Vec::try_from(z.grad()).unwrap())
}

#[test]
fn autograd_gets_the_finite_difference_of_the_surrogate() {
    const WIDTH: f64 = 1e-6;
    for surrogate in Surrogate::all().flat_map(|s| [s, s.with_alpha(0.7), s.with_alpha(3.0)]) {
        let alpha = Tensor::from(surrogate.alpha);
        let points = points();
        let (_, gradient) = gradient(surrogate, &points, &alpha);
        for (z, found) in points.iter().zip(gradient) {
            let at = |z| primitive(surrogate.shape, z, surrogate.alpha);
            let difference = (at(z + WIDTH) - at(z - WIDTH)) / (2.0 * WIDTH);
            assert!(
                (found - difference).abs() < 1e-7,
                "{surrogate} at {z}: {found}, not {difference}"
            );
        }
    }
}

#[test]
fn the_value_is_the_steps_whether_a_gradient_is_wanted_or_not() {
    for surrogate in Surrogate::all() {
        let alpha = Tensor::from(surrogate.alpha);
        let points: Vec<f64> = points().into_iter().chain([0.0, -0.0, 1e-300]).collect();
        let (with, _) = gradient(surrogate, &points, &alpha);
        let without = surrogate.fire(&Tensor::from_slice(&points), &alpha);
        assert!(with.equal(&without), "{surrogate}");
        let at_zero = surrogate.fire(&Tensor::from_slice(&[0.0f64]), &alpha);
        if surrogate.binary() {
            let fired = at_zero.double_value(&[0]) == 1.0;
            assert_eq!(fired, surrogate.fires_at_threshold(), "{surrogate}");
        }
    }
}

#[test]
fn a_trained_alpha_gets_the_gradient_of_the_surrogate() {
    // d/da atan(pi a z / 2) / pi and d/da a relu(z), summed over the points.
    for shape in [SurrogateShape::Atan, SurrogateShape::Relu] {
        let surrogate = Surrogate::new(shape).with_trained_alpha();
        let alpha = Tensor::from(surrogate.alpha).set_requires_grad(true);
        let points = points();
        let _ = gradient(surrogate, &points, &alpha);
        let sum = |a: f64| points.iter().map(|z| primitive(shape, *z, a)).sum::<f64>();
        let difference = (sum(surrogate.alpha + 1e-5) - sum(surrogate.alpha - 1e-5)) / 2e-5;
        let found = alpha.grad().double_value(&[]);
        assert!(
            (found - difference).abs() < 1e-5,
            "{shape:?}: {found}, not {difference}"
        );
    }
}

#[test]
fn in_float32_an_alpha_in_float64_changes_no_kind() {
    let z = Tensor::zeros([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    for surrogate in Surrogate::all() {
        assert_eq!(
            surrogate.fire(&z, &Tensor::from(surrogate.alpha)).kind(),
            Kind::Float
        );
    }
}

#[test]
fn names_are_parsed_and_printed() {
    for surrogate in Surrogate::all() {
        assert_eq!(surrogate.to_string().parse(), Ok(surrogate));
    }
    assert_eq!("atan:3".parse::<Surrogate>().unwrap().alpha, 3.0);
    for wrong in ["atna", "atan:", "atan:0", "atan:nan", "atan:inf", ""] {
        assert!(wrong.parse::<Surrogate>().is_err(), "{wrong}");
    }
}
