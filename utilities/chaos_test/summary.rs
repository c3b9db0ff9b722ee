//! What a run comes to.

use datastore_utilities::proof::Figures;
use serde_json::{Value, json};

use crate::campaign::Progress;

/// The figures of a run.
pub struct Summary<'a> {
    /// Repeats the run's choices.
    pub seed: u64,
    /// What its keys begin with.
    pub prefix: &'a str,
    /// `proven`, `violation`, `failure` or `interrupted`; `killed` when nothing was to be proven.
    pub result: &'a str,
    /// Whether anything was written and verified.
    pub is_verified: bool,
    /// More than one is a cluster.
    pub nodes: usize,
    pub progress: &'a Progress,
    pub figures: Figures,
}

impl Summary<'_> {
    fn start_ms(&self, quantile: f64) -> f64 {
        self.progress.starts_us.value_at_quantile(quantile) as f64 / 1_000.0
    }

    fn gap_ms(&self, quantile: f64) -> f64 {
        self.progress.gaps_us.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// One object.
    pub fn json(&self) -> Value {
        let mut json = self.json_of_one();
        if self.nodes > 1 {
            json["nodes"] = json!(self.nodes);
            json["pauses"] = json!(self.progress.pauses);
            json["divergences"] = json!(self.figures.divergences);
            json["failovers"] = json!(self.progress.gaps_us.len());
            json["failover_gap_ms"] = json!({"p50": self.gap_ms(0.5), "max": self.gap_ms(1.0)});
        }
        json
    }

    fn json_of_one(&self) -> Value {
        let Figures { acknowledged, refused, unknown, unknown_applied, registers_verified, .. } =
            self.figures;
        let Figures { lost, resurrected, partial_bulks, disagreements, .. } = self.figures;
        json!({
            "result": self.result, "seed": self.seed, "prefix": self.prefix,
            "rounds": self.progress.rounds, "kills": self.progress.kills,
            "acknowledged": acknowledged, "refused": refused,
            "unknown": unknown, "unknown_applied": unknown_applied, "registers_verified": registers_verified,
            "lost": lost, "resurrected": resurrected, "partial_bulks": partial_bulks, "disagreements": disagreements,
            "start_to_serving_ms": {
                "p50": self.start_ms(0.5), "p99": self.start_ms(0.99), "max": self.start_ms(1.0),
            },
        })
    }

    /// The same for a person.
    pub fn text(&self) -> String {
        let (figures, progress) = (&self.figures, &self.progress);
        let is_cluster = self.nodes > 1;
        let mut lines =
            vec![format!("{}: rounds {}, kills {}", self.result, progress.rounds, progress.kills)];
        if is_cluster {
            lines[0] += &format!(", pauses {} on {} nodes", progress.pauses, self.nodes);
        }
        if self.is_verified {
            lines.push(format!(
                "writes: acknowledged {}, refused {}, unknown {} (of these {} applied, {} not or overwritten)",
                figures.acknowledged,
                figures.refused,
                figures.unknown,
                figures.unknown_applied,
                figures.unknown - figures.unknown_applied
            ));
            let divergences =
                if is_cluster { format!(", divergences {}", figures.divergences) } else { String::new() };
            lines.push(format!(
                "lost {}, resurrected {}, partial bulks {}, disagreements {}{divergences}, \
                 in {} values and vectors verified",
                figures.lost,
                figures.resurrected,
                figures.partial_bulks,
                figures.disagreements,
                figures.registers_verified
            ));
        }
        if is_cluster && self.is_verified {
            let (count, [p50, max]) =
                (progress.gaps_us.len(), [0.5, 1.0].map(|quantile| self.gap_ms(quantile)));
            lines.push(match count {
                0 => "failovers 0".to_string(),
                _ => format!(
                    "failovers {count}, longest gap between two acknowledged writes in each: \
                     p50 {p50:.0} ms, max {max:.0} ms"
                ),
            });
        }
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| self.start_ms(quantile));
        lines.push(format!("start to serving: p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"));
        lines.join("\n")
    }
}
