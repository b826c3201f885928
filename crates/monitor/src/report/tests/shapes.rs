//! How distributions are drawn.

use expect_test::{Expect, expect};

use super::*;

#[test]
fn shares_are_drawn_not_counts() {
    let live = Shape::Numeric { edges: vec![0.0, 1.0, 2.0], counts: vec![1, 3], below: 0, above: 0 };
    let many =
        Shape::Numeric { edges: vec![0.0, 1.0, 2.0], counts: vec![1_000_000, 3_000_000], below: 0, above: 0 };
    // Bins twice as wide, half of whose values count for each half.
    let other = Shape::Numeric { edges: vec![0.0, 2.0], counts: vec![8], below: 0, above: 0 };
    check(
        &live,
        None,
        expect![[r#"
        0 to 1: live 25 %
        1 to 2: live 75 %"#]],
    );
    check(
        &live,
        Some(&many),
        expect![[r#"
        0 to 1: live 25 %, reference 25 %
        1 to 2: live 75 %, reference 75 %"#]],
    );
    check(
        &live,
        Some(&other),
        expect![[r#"
        0 to 1: live 25 %, reference 50 %
        1 to 2: live 75 %, reference 50 %
        The reference has other bins; its values are spread evenly over these."#]],
    );
    let beyond = Shape::Numeric { edges: vec![0.0, 1.0], counts: vec![2], below: 1, above: 1 };
    check(
        &beyond,
        None,
        expect![[r#"
        below 0: live 25 %
        0 to 1: live 50 %
        from 1 on: live 25 %
        ‹ and ›: values below and above the bins."#]],
    );
    let skewed = Shape::Numeric { edges: vec![0.0, 1.0, 10.0], counts: vec![1, 1], below: 0, above: 0 };
    check(
        &skewed,
        None,
        expect![[r#"
        0 to 1: live 50 %
        1 to 10: live 50 %
        Bins are drawn equally wide although they are not."#]],
    );
    let fine = Shape::Numeric {
        edges: (0..=120).map(f64::from).collect(),
        counts: vec![5; 120],
        below: 0,
        above: 0,
    };
    let html = drawn(&fine, None);
    assert_eq!(html.matches("<rect").count(), 60);
    assert!(html.contains("0 to 2: live 1.7 %") && html.contains("2 bins are joined in each bar."), "{html}");
}

#[test]
fn shapes_that_cannot_be_drawn_say_so() {
    let numeric = |edges: &[f64], counts: &[u64]| Shape::Numeric {
        edges: edges.to_vec(),
        counts: counts.to_vec(),
        below: 0,
        above: 0,
    };
    for shape in [
        Shape::default(),
        numeric(&[0.0, 1.0], &[0]),
        numeric(&[0.0, 1.0], &[1, 2]),
        numeric(&[1.0, 0.0], &[1]),
        numeric(&[f64::NEG_INFINITY, 0.0], &[1]),
        numeric(&[0.0], &[]),
        Shape::Categorical { counts: Vec::new(), other: 0 },
    ] {
        assert!(drawn(&shape, None).contains("No distribution"), "{shape:?}");
    }
    // The live side is drawn although the reference is of another kind.
    let live = numeric(&[0.0, 1.0], &[u64::MAX]);
    let reference =
        Shape::Categorical { counts: vec![("a".into(), u64::MAX), ("b".into(), u64::MAX)], other: 1 };
    assert!(drawn(&live, Some(&reference)).contains("0 to 1: live 100 %"));
    assert!(drawn(&reference, Some(&live)).contains("50 %"));
}

/// Compares what the marks of a histogram say, and the remarks.
#[expect(clippy::needless_pass_by_value, reason = "as expectations are written")]
fn check(live: &Shape, reference: Option<&Shape>, expected: Expect) {
    let html = drawn(live, reference);
    let says = parsed(&format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{html}</div>"), |page| {
        let marks = named(page, "rect").map(text);
        let remarks = named(page, "p").map(text);
        marks.chain(remarks).collect::<Vec<_>>().join("\n")
    });
    expected.assert_eq(&says);
}

fn drawn(live: &Shape, reference: Option<&Shape>) -> String {
    let mut m = markup::Markup::default();
    histogram::draw(&mut m, "x", live, reference);
    m.finish()
}
