//! Colours can be read, in light and in dark.

use crate::report::page;

#[test]
fn colours_can_be_told_apart_from_their_ground() {
    for dark in [false, true] {
        let on = |ink: &str, ground: &str| contrast(colour(ink, dark), colour(ground, dark));
        let texts = [
            ("ink", "ground"),
            ("quiet", "ground"),
            ("quiet", "card"),
            ("link", "card"),
            ("bad", "card"),
            ("good", "card"),
            ("bad", "bad-ground"),
            ("ink", "bad-ground"),
            ("warn", "warn-ground"),
            ("ink", "good-ground"),
            ("quiet", "faint"),
            ("link", "faint"),
        ];
        for (ink, ground) in texts {
            assert!(on(ink, ground) >= 4.5, "{ink} on {ground}, dark: {dark}: {}", on(ink, ground));
        }
        let marks = [
            ("bar", "card"),
            ("live", "card"),
            ("second", "card"),
            ("reference", "card"),
            ("reference", "bar"),
            ("live", "band"),
            ("second", "band"),
            ("edge", "card"),
            ("edge", "ground"),
        ];
        for (mark, ground) in marks {
            assert!(on(mark, ground) >= 2.95, "{mark} on {ground}, dark: {dark}: {}", on(mark, ground));
        }
    }
}

/// A colour of the style sheet: `--name: light-dark(#light, #dark);`.
fn colour(name: &str, dark: bool) -> [f64; 3] {
    let (_, rest) = page::STYLE.split_once(&format!("--{name}: light-dark(")).expect(name);
    let both: Vec<_> = rest.split(')').next().unwrap().split(", ").collect();
    let code = u32::from_str_radix(both[usize::from(dark)].trim_start_matches('#'), 16).unwrap();
    [16, 8, 0].map(|shift| f64::from(code >> shift & 0xff) / 255.0)
}

/// The ratio that WCAG 2 defines.
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let luminance = |colour: [f64; 3]| {
        let linear = colour.map(|c| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}
