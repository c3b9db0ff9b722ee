//! Korean words without the particles behind them.
//!
//! Korean puts no space between a noun and what it does in the sentence (학교
//! school, 학교에 at school, 학교에서는 at school, by contrast), so that a noun would
//! be found in few of its places. A document's word is indexed without its last
//! particle, and without the one before that, too. Whether a word ends with one
//! can't be known without a dictionary (the end of 고양이, cat, looks like 이), so
//! that every step is one more word to be found by. Some particles only come
//! last: 고양이가 is 고양이 with 가, and not 고양 with two.

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

/// The particles that end with this syllable, and forms of the verb "to be", which is attached like one. Longer ones
/// stand first: the first that fits is taken.
fn ending_with(last: char) -> &'static [(&'static str, After, Place)] {
    match last {
        '터' => &[
            ("으로부터", After::Consonant, Place::Any),
            ("로부터", After::VowelOrL, Place::Any),
            ("부터", After::Any, Place::Any),
        ],
        '고' => &[
            ("이라고", After::Consonant, Place::Last),
            ("하고", After::Any, Place::Any),
            ("라고", After::Vowel, Place::Last),
            ("이고", After::Consonant, Place::Last),
        ],
        '는' => &[
            ("이라는", After::Consonant, Place::Last),
            ("라는", After::Vowel, Place::Last),
            ("는", After::Vowel, Place::Last),
        ],
        '다' => &[
            ("입니다", After::Any, Place::Last),
            ("이었다", After::Consonant, Place::Last),
            ("보다", After::Any, Place::Any),
            ("마다", After::Any, Place::Any),
            ("이다", After::Consonant, Place::Last),
            ("였다", After::Vowel, Place::Last),
        ],
        '요' => &[("이에요", After::Consonant, Place::Last), ("예요", After::Vowel, Place::Last)],
        '서' => &[
            ("에게서", After::Any, Place::Any),
            ("한테서", After::Any, Place::Any),
            ("으로서", After::Consonant, Place::Any),
            ("에서", After::Any, Place::Any),
            ("께서", After::Any, Place::Any),
            ("로서", After::VowelOrL, Place::Any),
        ],
        '써' => &[("으로써", After::Consonant, Place::Any), ("로써", After::VowelOrL, Place::Any)],
        '게' => &[("에게", After::Any, Place::Any)],
        '테' => &[("한테", After::Any, Place::Any)],
        '지' => &[("까지", After::Any, Place::Any)],
        '럼' => &[("처럼", After::Any, Place::Any)],
        '에' => &[("밖에", After::Any, Place::Any), ("에", After::Any, Place::Any)],
        '차' => &[("조차", After::Any, Place::Any)],
        '저' => &[("마저", After::Any, Place::Any)],
        '로' => &[
            ("대로", After::Any, Place::Any),
            ("으로", After::Consonant, Place::Any),
            ("로", After::VowelOrL, Place::Any),
        ],
        '이' => &[("같이", After::Any, Place::Any), ("이", After::Consonant, Place::Last)],
        '큼' => &[("만큼", After::Any, Place::Any)],
        '나' => &[("이나", After::Consonant, Place::Last), ("나", After::Vowel, Place::Last)],
        '랑' => &[("이랑", After::Consonant, Place::Any), ("랑", After::Vowel, Place::Any)],
        '란' => &[("이란", After::Consonant, Place::Last), ("란", After::Vowel, Place::Last)],
        '며' => &[("이며", After::Consonant, Place::Last), ("며", After::Vowel, Place::Last)],
        '든' => &[("이든", After::Consonant, Place::Last)],
        '은' => &[("은", After::Consonant, Place::Last)],
        '가' => &[("가", After::Vowel, Place::Last)],
        '을' => &[("을", After::Consonant, Place::Last)],
        '를' => &[("를", After::Vowel, Place::Last)],
        '과' => &[("과", After::Consonant, Place::Any)],
        '와' => &[("와", After::Vowel, Place::Any)],
        '의' => &[("의", After::Any, Place::Last)],
        '도' => &[("도", After::Any, Place::Last)],
        '만' => &[("만", After::Any, Place::Any)],
        '께' => &[("께", After::Any, Place::Any)],
        '뿐' => &[("뿐", After::Any, Place::Any)],
        '들' => &[("들", After::Any, Place::Any)],
        '인' => &[("인", After::Any, Place::Last)],
        _ => &[],
    }
}

/// Whether the word may end with a particle.
pub(super) fn may_end_with_particle(word: &str) -> bool {
    word.chars().next_back().is_some_and(is_syllable)
}

/// Gives the word without its last particle, without the one before, and so on.
pub(super) fn stems(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    (0..PARTICLES_MAX).map_while(move |number| {
        rest = without_particle(rest, number == 0)?;
        Some(rest)
    })
}

fn without_particle(word: &str, is_last: bool) -> Option<&str> {
    ending_with(word.chars().next_back()?).iter().find_map(|(particle, after, place)| {
        let stem = word.strip_suffix(particle)?;
        let fits = after.fits(stem.chars().next_back()?) && (is_last || *place == Place::Any);
        fits.then_some(stem)
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

    fn all_stems(word: &str) -> Vec<&str> {
        stems(word).collect()
    }

    #[test]
    fn particles_are_taken_off_one_after_the_other() {
        assert_eq!(all_stems("학교에"), ["학교"]);
        assert_eq!(all_stems("학교에서는"), ["학교에서", "학교"]);
        assert_eq!(all_stems("학생들에게"), ["학생들", "학생"]);
        assert_eq!(all_stems("고양이가"), ["고양이"]);
        assert_eq!(all_stems("서울로부터"), ["서울"]);
        assert_eq!(all_stems("집으로"), ["집"]);
        assert_eq!(all_stems("python을"), ["python"]);
        assert_eq!(all_stems("api를"), ["api"]);
    }

    #[test]
    fn a_particle_stands_behind_what_it_can_stand_behind() {
        // An apple, whose last syllable would be a particle behind a consonant.
        assert_eq!(all_stems("사과"), [""; 0]);
        assert_eq!(all_stems("사과를"), ["사과"]);
        assert_eq!(all_stems("물로"), ["물"]);
        assert_eq!(all_stems("나로"), ["나"]);
        assert_eq!(all_stems("집로"), [""; 0]);
        assert_eq!(all_stems("에서"), [""; 0]);
        assert_eq!(all_stems("english"), [""; 0]);
        assert_eq!(all_stems(""), [""; 0]);
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
