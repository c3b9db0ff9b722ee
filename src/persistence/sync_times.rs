//! How long a disk's last syncs took, and so how long one may take before something is wrong with it.

use std::time::Duration;

/// So many of the last ones count.
const SYNCS_KEPT: usize = 1_000;

/// However fast the syncs before were, one of this length is no sign of trouble.
const STALLED_AFTER_MIN: Duration = Duration::from_secs(2);

/// However slow they were, one of this length is.
const STALLED_AFTER_MAX: Duration = Duration::from_secs(10);

/// So many times as long as 99 in 100 of them took.
const STALLED_FACTOR: u32 = 20;

/// The last syncs of a disk.
#[derive(Debug, Default)]
pub struct SyncTimes {
    /// In microseconds; the newest one takes the oldest one's place.
    took_us: Vec<u32>,
    next: usize,
}

impl SyncTimes {
    /// One has ended.
    pub fn record(&mut self, took: Duration) {
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.took_us.len() < SYNCS_KEPT {
            self.took_us.push(took_us);
        } else {
            self.took_us[self.next] = took_us;
            self.next = (self.next + 1) % SYNCS_KEPT;
        }
    }

    /// A disk whose sync takes longer than this is stalled.
    pub fn stalled_after(&self) -> Duration {
        let usual = self.percentile_99().unwrap_or_default() * STALLED_FACTOR;
        usual.clamp(STALLED_AFTER_MIN, STALLED_AFTER_MAX)
    }

    fn percentile_99(&self) -> Option<Duration> {
        let mut sorted = self.took_us.clone();
        let place = (sorted.len() * 99).div_ceil(100).checked_sub(1)?;
        let (_, at, _) = sorted.select_nth_unstable(place);
        Some(Duration::from_micros(u64::from(*at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(syncs: impl Iterator<Item = u64>) -> Duration {
        let mut times = SyncTimes::default();
        syncs.for_each(|took_ms| times.record(Duration::from_millis(took_ms)));
        times.stalled_after()
    }

    #[test]
    fn a_disk_is_stalled_after_twenty_times_what_it_usually_takes_within_bounds() {
        assert_eq!(after(std::iter::empty()), STALLED_AFTER_MIN);
        assert_eq!(after(std::iter::repeat_n(5, 500)), STALLED_AFTER_MIN, "20 times 5 ms is 0.1 s");
        assert_eq!(after(std::iter::repeat_n(200, 500)), Duration::from_secs(4));
        assert_eq!(after(std::iter::repeat_n(3_000, 500)), STALLED_AFTER_MAX);
        // One in a hundred is no rule, two are.
        assert_eq!(after((0..1_000).map(|sync| if sync < 10 { 9_000 } else { 5 })), STALLED_AFTER_MIN);
        assert_eq!(after((0..1_000).map(|sync| if sync < 11 { 9_000 } else { 5 })), STALLED_AFTER_MAX);
    }

    #[test]
    fn the_last_thousand_count() {
        let slow_and_then_fast = std::iter::repeat_n(3_000, 5_000).chain(std::iter::repeat_n(5, SYNCS_KEPT));
        assert_eq!(after(slow_and_then_fast), STALLED_AFTER_MIN);
    }

    #[test]
    fn a_sync_of_hours_is_recorded_as_one() {
        let mut times = SyncTimes::default();
        times.record(Duration::from_secs(10_000_000));
        assert_eq!(times.stalled_after(), STALLED_AFTER_MAX);
    }
}
