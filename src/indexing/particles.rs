//! Korean words without the particles behind them.
//!
//! Korean puts no space between a noun and what it does in the sentence (학교
//! school, 학교에 at school, 학교에서는 at school, by contrast), so that a noun would
//! be found in few of its places. Particles that no noun ends like (는, 를, 에서) are
//! taken off words of documents and of queries. What else looks like one may be
//! the end of a noun, which only a dictionary knows (이 of 고양이, cat): a document's
//! word is indexed with it and without it, and a query's is looked for with it.
//! Some particles only come last: 고양이가 is 고양이 with 가, and not 고양 with two.

/// So many particles stand behind a noun at most.
const PARTICLES_MAX: usize = 3;

/// What the syllable in front of a particle ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Any,
    Vowel,
    Consonant,
    /// A vowel or `ㄹ`.
    VowelOrL,
}

/// Where among several particles one may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Any,
    /// Behind it none can follow.
    Last,
}

/// Whether a noun may end like the particle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sense {
    Sure,
    Unsure,
}

/// The particles that end with this syllable, and forms of the verb "to be", which is attached like one. Longer ones
/// stand first: the first that fits is taken.
fn ending_with(last: char) -> &'static [(&'static str, After, Place, Sense)] {
    match last {
        '터' => &[
            ("으로부터", After::Consonant, Place::Any, Sense::Sure),
            ("로부터", After::VowelOrL, Place::Any, Sense::Sure),
            ("부터", After::Any, Place::Any, Sense::Unsure),
        ],
        '고' => &[
            ("이라고", After::Consonant, Place::Last, Sense::Sure),
            ("하고", After::Any, Place::Any, Sense::Unsure),
            ("라고", After::Vowel, Place::Last, Sense::Unsure),
            ("이고", After::Consonant, Place::Last, Sense::Unsure),
        ],
        '는' => &[
            ("이라는", After::Consonant, Place::Last, Sense::Sure),
            ("라는", After::Vowel, Place::Last, Sense::Sure),
            ("는", After::Vowel, Place::Last, Sense::Sure),
        ],
        '다' => &[
            ("입니다", After::Any, Place::Last, Sense::Sure),
            ("이었다", After::Consonant, Place::Last, Sense::Unsure),
            ("보다", After::Any, Place::Any, Sense::Unsure),
            ("마다", After::Any, Place::Any, Sense::Unsure),
            ("이다", After::Consonant, Place::Last, Sense::Unsure),
            ("였다", After::Vowel, Place::Last, Sense::Unsure),
        ],
        '요' => &[
            ("이에요", After::Consonant, Place::Last, Sense::Sure),
            ("예요", After::Vowel, Place::Last, Sense::Sure),
        ],
        '서' => &[
            ("에게서", After::Any, Place::Any, Sense::Sure),
            ("한테서", After::Any, Place::Any, Sense::Sure),
            ("으로서", After::Consonant, Place::Any, Sense::Sure),
            ("에서", After::Any, Place::Any, Sense::Sure),
            ("께서", After::Any, Place::Any, Sense::Sure),
            ("로서", After::VowelOrL, Place::Any, Sense::Unsure),
        ],
        '써' => &[
            ("으로써", After::Consonant, Place::Any, Sense::Sure),
            ("로써", After::VowelOrL, Place::Any, Sense::Sure),
        ],
        '게' => &[("에게", After::Any, Place::Any, Sense::Sure)],
        '테' => &[("한테", After::Any, Place::Any, Sense::Sure)],
        '지' => &[("까지", After::Any, Place::Any, Sense::Sure)],
        '럼' => &[("처럼", After::Any, Place::Any, Sense::Unsure)],
        '에' => {
            &[("밖에", After::Any, Place::Any, Sense::Unsure), ("에", After::Any, Place::Any, Sense::Unsure)]
        }
        '차' => &[("조차", After::Any, Place::Any, Sense::Unsure)],
        '저' => &[("마저", After::Any, Place::Any, Sense::Unsure)],
        '로' => &[
            ("대로", After::Any, Place::Any, Sense::Unsure),
            ("으로", After::Consonant, Place::Any, Sense::Sure),
            ("로", After::VowelOrL, Place::Any, Sense::Unsure),
        ],
        '이' => &[
            ("같이", After::Any, Place::Any, Sense::Unsure),
            ("이", After::Consonant, Place::Last, Sense::Unsure),
        ],
        '큼' => &[("만큼", After::Any, Place::Any, Sense::Unsure)],
        '나' => &[
            ("이나", After::Consonant, Place::Last, Sense::Unsure),
            ("나", After::Vowel, Place::Last, Sense::Unsure),
        ],
        '랑' => &[
            ("이랑", After::Consonant, Place::Any, Sense::Unsure),
            ("랑", After::Vowel, Place::Any, Sense::Unsure),
        ],
        '란' => &[
            ("이란", After::Consonant, Place::Last, Sense::Unsure),
            ("란", After::Vowel, Place::Last, Sense::Unsure),
        ],
        '며' => &[
            ("이며", After::Consonant, Place::Last, Sense::Unsure),
            ("며", After::Vowel, Place::Last, Sense::Unsure),
        ],
        '든' => &[("이든", After::Consonant, Place::Last, Sense::Unsure)],
        '은' => &[("은", After::Consonant, Place::Last, Sense::Sure)],
        '가' => &[("가", After::Vowel, Place::Last, Sense::Unsure)],
        '을' => &[("을", After::Consonant, Place::Last, Sense::Sure)],
        '를' => &[("를", After::Vowel, Place::Last, Sense::Sure)],
        '과' => &[("과", After::Consonant, Place::Any, Sense::Unsure)],
        '와' => &[("와", After::Vowel, Place::Any, Sense::Unsure)],
        '의' => &[("의", After::Any, Place::Last, Sense::Unsure)],
        '도' => &[("도", After::Any, Place::Last, Sense::Unsure)],
        '만' => &[("만", After::Any, Place::Any, Sense::Unsure)],
        '께' => &[("께", After::Any, Place::Any, Sense::Unsure)],
        '뿐' => &[("뿐", After::Any, Place::Any, Sense::Unsure)],
        '들' => &[("들", After::Any, Place::Any, Sense::Unsure)],
        '인' => &[("인", After::Any, Place::Last, Sense::Unsure)],
        _ => &[],
    }
}

/// Whether the word may end with a particle.
pub(super) fn may_end_with_particle(word: &str) -> bool {
    word.chars().next_back().is_some_and(is_syllable)
}

/// The word without the particles at its end that no noun ends like.
pub(super) fn without_sure_particles(word: &str) -> &str {
    let mut rest = word;
    for _ in 0..PARTICLES_MAX {
        match without_particle(rest, rest.len() == word.len(), |sense| sense == Sense::Sure) {
            Some(stem) => rest = stem,
            None => break,
        }
    }
    rest
}

/// Gives what may be the word without its last particle, without the one before, and so on. From the
/// end of `whole` particles have been taken before.
pub(super) fn stems<'a>(word: &'a str, whole: &str) -> impl Iterator<Item = &'a str> {
    let mut rest = word;
    let mut is_last = word.len() == whole.len();
    (0..PARTICLES_MAX).map_while(move |_| {
        rest = without_particle(rest, is_last, |_| true)?;
        is_last = false;
        Some(rest)
    })
}

fn without_particle(word: &str, is_last: bool, wanted: impl Fn(Sense) -> bool) -> Option<&str> {
    ending_with(word.chars().next_back()?).iter().find_map(|(particle, after, place, sense)| {
        let stem = word.strip_suffix(particle)?;
        let fits = after.fits(stem.chars().next_back()?) && (is_last || *place == Place::Any);
        (fits && wanted(*sense)).then_some(stem)
    })
}

impl After {
    /// Of what isn't Hangul it isn't known how it is pronounced.
    fn fits(self, last: char) -> bool {
        const L: u32 = 8;
        let consonant = if is_syllable(last) { (u32::from(last) - 0xac00) % 28 } else { return true };
        match self {
            After::Any => true,
            After::Vowel => consonant == 0,
            After::Consonant => consonant != 0,
            After::VowelOrL => matches!(consonant, 0 | L),
        }
    }
}

fn is_syllable(character: char) -> bool {
    matches!(character, '\u{ac00}'..='\u{d7a3}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a query looks for, and what a document is found by beside it.
    fn all_stems(word: &str) -> (&str, Vec<&str>) {
        let sure = without_sure_particles(word);
        (sure, stems(sure, word).collect())
    }

    #[test]
    fn particles_are_taken_off_one_after_the_other() {
        assert_eq!(all_stems("학교에"), ("학교에", vec!["학교"]));
        assert_eq!(all_stems("학교에서는"), ("학교", vec![]));
        assert_eq!(all_stems("학교에는"), ("학교에", vec!["학교"]));
        assert_eq!(all_stems("학생들에게"), ("학생들", vec!["학생"]));
        assert_eq!(all_stems("고양이가"), ("고양이가", vec!["고양이"]));
        assert_eq!(all_stems("서울로부터"), ("서울", vec![]));
        assert_eq!(all_stems("집으로"), ("집", vec![]));
        assert_eq!(all_stems("python을"), ("python", vec![]));
        assert_eq!(all_stems("api와"), ("api와", vec!["api"]));
    }

    #[test]
    fn a_particle_stands_behind_what_it_can_stand_behind() {
        // An apple, whose last syllable would be a particle behind a consonant.
        assert_eq!(all_stems("사과"), ("사과", vec![]));
        assert_eq!(all_stems("사과를"), ("사과", vec![]));
        assert_eq!(all_stems("마을"), ("마을", vec![]));
        assert_eq!(all_stems("물로"), ("물로", vec!["물"]));
        assert_eq!(all_stems("집로"), ("집로", vec![]));
        for whole in ["에서", "는", "english", ""] {
            assert_eq!(all_stems(whole), (whole, vec![]));
        }
    }

    #[test]
    fn each_particle_is_found_where_it_ends_and_longer_ones_stand_first() {
        for last in '\u{ac00}'..='\u{d7a3}' {
            let particles = ending_with(last);
            assert!(particles.iter().all(|(particle, ..)| particle.ends_with(last)), "{last}");
            assert!(particles.is_sorted_by_key(|(particle, ..)| std::cmp::Reverse(particle.len())), "{last}");
        }
    }
}
