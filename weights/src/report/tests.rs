use super::*;

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

#[test]
fn every_tensor_lands_in_its_list() {
    let wanted = [
        Wanted::new("a", [2]),
        Wanted::new("b", [2]),
        Wanted::new("c", [2]),
        Wanted::new("d", [2]).optional(),
    ];
    let found: [(&str, &[usize]); 3] = [("a", &[2]), ("b", &[3]), ("z", &[])];
    let report = LoadReport::compare_shapes(&wanted, &found);
    assert_eq!(report.applied, names(&["a"]));
    assert_eq!(report.missing, names(&["c"]));
    assert_eq!(report.absent_optional, names(&["d"]));
    assert_eq!(report.unused, names(&["z"]));
    assert_eq!(
        report.misshapen,
        [Misshapen {
            name: "b".into(),
            wanted: vec![2],
            found: vec![3]
        }]
    );
    let text = report
        .check(&AllowedExtras::default())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains(
            "1 missing: \"c\"; 1 unused: \"z\"; 1 misshapen: \"b (wanted [2], found [3])\""
        ),
        "{text}"
    );
}

#[test]
fn extras_are_allowed_by_pattern_and_on_their_side_only() {
    let report = LoadReport {
        missing: names(&["head.w", "bn.num_batches_tracked"]),
        ..LoadReport::default()
    };
    assert!(report.check(&AllowedExtras::default()).is_err());
    assert!(
        report
            .check(&AllowedExtras::default().and_unused(["head.*"]))
            .is_err()
    );
    assert!(
        report
            .check(&AllowedExtras::default().and_missing(["head.*"]))
            .is_ok()
    );
    let report = LoadReport {
        unused: names(&["bn.num_batches_tracked"]),
        ..LoadReport::default()
    };
    assert!(report.check(&AllowedExtras::default()).is_ok());
}

#[test]
fn bad_values_and_shapes_are_never_allowed() {
    let all = AllowedExtras::default()
        .and_missing(["*"])
        .and_unused(["*"]);
    let report = LoadReport {
        non_finite: names(&["w"]),
        ..LoadReport::default()
    };
    assert!(report.check(&all).is_err());
    let misshapen = vec![Misshapen {
        name: "w".into(),
        wanted: vec![1],
        found: vec![2],
    }];
    assert!(
        LoadReport {
            misshapen,
            ..LoadReport::default()
        }
        .check(&all)
        .is_err()
    );
}

#[test]
fn long_lists_are_cut_and_counted() {
    let missing: Vec<_> = (0..25).map(|i| format!("w{i}")).collect();
    let text = LoadReport {
        missing,
        ..LoadReport::default()
    }
    .check(&AllowedExtras::default())
    .unwrap_err()
    .to_string();
    assert!(
        text.contains("25 missing") && text.contains("\"w9\" and 15 more") && !text.contains("w10"),
        "{text}"
    );
}

#[test]
fn stars_stand_for_any_text() {
    for (pattern, name, is_match) in [
        ("*.x", "a.x", true),
        ("*.x", "x", false),
        ("a.*.x", "a.b.c.x", true),
        ("a.*.x", "a.x", false),
        ("*", "", true),
        ("a*b*c", "a1b2c", true),
        ("a*b*c", "acb", false),
        ("ab*ba", "aba", false),
        ("a", "ab", false),
    ] {
        assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
    }
}
