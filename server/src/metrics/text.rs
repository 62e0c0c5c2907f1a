//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

use super::histogram::Histogram;

/// What a figure is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// It only rises, until the broker restarts.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// A page in the making.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// Begins a family: its samples come next.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.line(format_args!("{end} {value}"));
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A histogram of values of which `per` make a unit.
    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram, per: f64) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} histogram"));
        let bucket = format!("{name}_bucket");
        let mut all = 0;
        for (bound, count) in histogram.cumulated() {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| (bound as f64 / per).to_string());
            self.sample(&bucket, &[("le", &bound)], count);
            all = count;
        }
        self.sample(&format!("{name}_sum"), &[], histogram.sum() as f64 / per);
        self.sample(&format!("{name}_count"), &[], all);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into memory does not fail.
        let _ = writeln!(self.0, "{line}");
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_prometheus_reads() {
        let mut text = Text::default();
        text.single("a_total", Kind::Counter, "All.", 3);
        text.family("b", Kind::Gauge, "Some.");
        text.sample("b", &[("x", "q\"\\\n"), ("y", "")], 0.5);
        let mut histogram = Histogram::new(&[250, 1_000]);
        histogram.observe(500);
        text.histogram("c_seconds", "Time.", &histogram, 1e6);
        assert_eq!(
            text.finish(),
            "# HELP a_total All.\n# TYPE a_total counter\na_total 3\n\
             # HELP b Some.\n# TYPE b gauge\nb{x=\"q\\\"\\\\\\n\",y=\"\"} 0.5\n\
             # HELP c_seconds Time.\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{le=\"0.00025\"} 0\nc_seconds_bucket{le=\"0.001\"} 1\nc_seconds_bucket{le=\"+Inf\"} 1\n\
             c_seconds_sum 0.0005\nc_seconds_count 1\n"
        );
    }
}
