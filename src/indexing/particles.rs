//! Korean words without the particles behind them.
//!
//! Korean puts no space between a noun and what it does in the sentence (학교
//! school, 학교에 at school, 학교에서는 at school, by contrast), so that a noun would
//! be found in few of its places. A document's word is indexed without its last
//! particle, and without the one before that, too. Which of them are particles
//! can't be known without a dictionary (고양이가 is the cat 고양이 with 가, which ends
//! like 이), so that every step is one more word to be found by.

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

/// The particles, and forms of the verb "to be", which is attached like one. Longer ones first: the
/// first that fits is taken.
const PARTICLES: [(&str, After); 62] = [
    ("으로부터", After::Consonant),
    ("이라고", After::Consonant),
    ("이라는", After::Consonant),
    ("입니다", After::Any),
    ("이에요", After::Consonant),
    ("이었다", After::Consonant),
    ("에게서", After::Any),
    ("한테서", After::Any),
    ("으로서", After::Consonant),
    ("으로써", After::Consonant),
    ("로부터", After::VowelOrL),
    ("에서", After::Any),
    ("에게", After::Any),
    ("께서", After::Any),
    ("한테", After::Any),
    ("까지", After::Any),
    ("부터", After::Any),
    ("처럼", After::Any),
    ("보다", After::Any),
    ("마다", After::Any),
    ("밖에", After::Any),
    ("조차", After::Any),
    ("마저", After::Any),
    ("대로", After::Any),
    ("같이", After::Any),
    ("만큼", After::Any),
    ("하고", After::Any),
    ("라고", After::Vowel),
    ("라는", After::Vowel),
    ("로서", After::VowelOrL),
    ("로써", After::VowelOrL),
    ("으로", After::Consonant),
    ("이나", After::Consonant),
    ("이랑", After::Consonant),
    ("이란", After::Consonant),
    ("이며", After::Consonant),
    ("이고", After::Consonant),
    ("이든", After::Consonant),
    ("이다", After::Consonant),
    ("예요", After::Vowel),
    ("였다", After::Vowel),
    ("은", After::Consonant),
    ("는", After::Vowel),
    ("이", After::Consonant),
    ("가", After::Vowel),
    ("을", After::Consonant),
    ("를", After::Vowel),
    ("과", After::Consonant),
    ("와", After::Vowel),
    ("로", After::VowelOrL),
    ("에", After::Any),
    ("의", After::Any),
    ("도", After::Any),
    ("만", After::Any),
    ("께", After::Any),
    ("뿐", After::Any),
    ("들", After::Any),
    ("나", After::Vowel),
    ("랑", After::Vowel),
    ("란", After::Vowel),
    ("며", After::Vowel),
    ("인", After::Any),
];

/// Whether the word may end with a particle.
pub(super) fn may_end_with_particle(word: &str) -> bool {
    word.chars().next_back().is_some_and(is_syllable)
}

/// Gives the word without its last particle, without the one before, and so on.
pub(super) fn stems(word: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(word), |stem| without_particle(stem)).skip(1).take(PARTICLES_MAX)
}

fn without_particle(word: &str) -> Option<&str> {
    if !may_end_with_particle(word) {
        return None;
    }
    PARTICLES.iter().find_map(|(particle, after)| {
        let stem = word.strip_suffix(particle)?;
        let fits = after.fits(stem.chars().next_back()?);
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
        assert_eq!(all_stems("고양이가"), ["고양이", "고양"]);
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
    fn longer_particles_stand_first() {
        for (place, (particle, _)) in PARTICLES.iter().enumerate() {
            let hidden = PARTICLES[..place].iter().find(|(longer, _)| particle.ends_with(longer));
            assert!(
                hidden.is_none(),
                "{particle} stands behind {hidden:?}",
                hidden = hidden.map(|(word, _)| word)
            );
        }
    }
}
