//! Figures, how far they lie apart, and what they are held to.

use serde::Serialize;

/// The middle of some figures and how far they lie apart.
#[derive(Clone, Copy, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Spread {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |place: usize| figures.get(place).copied().unwrap_or(f64::NAN);
        let last = figures.len().saturating_sub(1);
        // Of an even number the mean of the middle two.
        Spread { min: at(0), median: (at(last / 2) + at(figures.len() / 2)) / 2.0, max: at(last) }
    }
}

/// What a figure is held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It should be no less.
    AtLeast(f64),
    /// It should be no more.
    AtMost(f64),
}

impl Mark {
    /// The least or the most.
    pub fn bound(self) -> f64 {
        match self {
            Mark::AtLeast(bound) | Mark::AtMost(bound) => bound,
        }
    }

    /// Whether the figure is good.
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Mark::AtLeast(least) => figure >= least,
            Mark::AtMost(most) => figure <= most,
        }
    }
}

/// A figure beside its mark.
#[derive(Serialize)]
pub struct Marked {
    /// What is held to it.
    pub figure: f64,
    /// What it is held to.
    pub mark: Mark,
    /// Whether it is as good.
    pub is_met: bool,
}

impl Marked {
    /// Holds a figure to its mark.
    pub fn new(figure: f64, mark: Mark) -> Marked {
        Marked { figure, mark, is_met: mark.is_met(figure) }
    }
}

/// A mark, and whether it is met.
pub fn mark(mark: Option<(Mark, bool)>) -> String {
    let Some((mark, is_met)) = mark else { return "–".into() };
    let said = if is_met { "met" } else { "**not met**" };
    match mark {
        Mark::AtLeast(least) => format!("≥ {}: {said}", short(least)),
        Mark::AtMost(most) => format!("≤ {}: {said}", short(most)),
    }
}

/// Large numbers whole, small ones with what matters.
pub fn short(number: f64) -> String {
    if number >= 10.0 {
        grouped(number)
    } else {
        format!("{number:.2}").trim_end_matches('0').trim_end_matches('.').into()
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Mark, Spread, grouped, mark, short};

    #[test]
    fn numbers_are_grouped() {
        let cases =
            [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (123_456.0, "123,456"), (1e6, "1,000,000")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        assert_eq!([short(1.0), short(1.5), short(0.95), short(250.0)], ["1", "1.5", "0.95", "250"]);
    }

    #[test]
    fn marks_say_whether_they_are_met() {
        assert_eq!(mark(Some((Mark::AtLeast(1.3), true))), "≥ 1.3: met");
        assert_eq!(mark(Some((Mark::AtMost(100.0), false))), "≤ 100: **not met**");
        assert_eq!(mark(None), "–");
    }

    #[test]
    fn marks_are_met_at_their_edge() {
        assert!(Mark::AtLeast(1.3).is_met(1.3) && !Mark::AtLeast(1.3).is_met(1.29));
        assert!(Mark::AtMost(100.0).is_met(100.0) && !Mark::AtMost(100.0).is_met(100.1));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(Spread::of([7.0]).median, 7.0);
    }
}
