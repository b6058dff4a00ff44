use super::*;

#[test]
fn top_k_is_ordered_and_ties_go_to_the_lower_class() {
    assert_eq!(top_k(&[0.1, 0.9, 0.5], 2), [1, 2]);
    assert_eq!(top_k(&[1.0, 2.0, 2.0, 1.0, 2.0, 1.0], 5), [1, 2, 4, 0, 3]);
    assert_eq!(top_k(&[0.0, -0.0, 0.0], 5), [0, 1, 2]);
    assert_eq!(top_k(&[3.0], 5), [0]);
    assert_eq!(top_k(&[], 5), [0; 0]);
}

#[test]
fn top_k_equals_a_full_sort() {
    let mut state = 7_u64;
    for _ in 0..500 {
        let logits: Vec<f64> = (0..40)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                ((state >> 33) % 12) as f64
            })
            .collect();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        assert_eq!(top_k(&logits, 5), order[..5]);
    }
}

/// Figures from 60-digit decimal arithmetic (Python's `decimal`).
#[test]
fn cross_entropy_equals_decimal_arithmetic() {
    let cases: [(&[f64], usize, f64); 6] = [
        (&[1.0, 2.0, 3.0], 0, 2.40760596444438),
        (&[0.1, -2.5, 7.25, 3.5, -0.75], 3, 3.7743963416127553),
        (&[1000.0, 999.5, -1000.0], 1, 0.9740769841801067),
        (&[-745.5, -746.0], 0, 0.4740769841801067),
        (&[1e-9, 0.0], 1, 0.6931471810599453),
        (&[30.0, -30.0], 0, 8.75651076269652e-27),
    ];
    for (logits, label, expected) in cases {
        let got = cross_entropy(logits, label);
        assert!(
            (got - expected).abs() <= 4.0 * f64::EPSILON * expected.max(0.5),
            "{logits:?}: {got:e} for {expected:e}"
        );
    }
}

#[test]
fn logits_that_are_not_finite_are_described() {
    let result = score(&[1.0, f64::NAN, f64::INFINITY, f64::NAN], Some(0));
    assert_eq!(
        result,
        RowResult::NonFinite("2 NaN and 1 infinite of 4 logits".into())
    );
    let huge = score(&[f64::MAX, f64::MIN], Some(1));
    assert!(matches!(huge, RowResult::NonFinite(_)), "{huge:?}");
    let unlabelled = score(&[f64::MAX, f64::MIN], None);
    assert!(matches!(unlabelled, RowResult::Scored { nll: None, .. }));
}

/// Table I of R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, method 3.
#[test]
fn wilson_interval_equals_published_figures() {
    for (correct, of, low, high) in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ] {
        let [l, h] = wilson95(correct, of);
        assert!(
            (l - low).abs() < 5e-5 && (h - high).abs() < 5e-5,
            "{correct}/{of}: {l} {h}"
        );
    }
    assert_eq!(wilson95(20, 20)[1], 1.0);
    assert_eq!(Accuracy::new(0, 0), None);
    assert_eq!(Accuracy::new(3, 4).map(|a| a.percent), Some(75.0));
}

/// Figures from exact fractions (Python's `fractions`).
#[test]
fn binomial_tail_equals_exact_fractions() {
    for (k, n, p, expected) in [
        (3, 10, 0.25, 0.5255928039550781),
        (60, 500, 0.1, 0.9190128377729674),
        (8, 1000, 0.001, 0.9999899681293852),
        (1, 24, 0.25, 0.0010033912775533338),
        (130, 1000, 0.1, 0.9986586016291266),
        (5, 5, 0.5, 0.96875),
        (9, 5, 0.5, 1.0),
    ] {
        let got = below(k, n, p);
        assert!((got - expected).abs() < 1e-11, "{k} of {n} at {p}: {got}");
    }
}

#[test]
fn chance_is_told_from_knowledge_and_from_too_few_images() {
    // ImageNet with permuted labels: about 50 of 50 000.
    assert!(at_chance(50, 50_000, 1000));
    assert!(at_chance(0, 50_000, 1000));
    assert!(!at_chance(35_000, 50_000, 1000));
    // Better than guessing, however weak.
    assert!(!at_chance(120, 50_000, 1000));
    // Too few images to tell.
    assert!(!at_chance(0, 10, 1000));
    assert!(at_chance(0, 40, 1000));
    assert!(!at_chance(0, 0, 1000));
    // Two classes.
    assert!(at_chance(505, 1000, 2));
    assert!(!at_chance(900, 1000, 2));
    assert!(!at_chance(5, 10, 2));
    assert!(!at_chance(1, 1, 1));
}
