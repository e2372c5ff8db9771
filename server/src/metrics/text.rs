//! Prometheus' text form, version 0.0.4.
//!
//! Written here because it is small and does not change, and because the
//! libraries for it count in whole numbers only and keep every duration in a
//! queue until somebody empties it.

use std::fmt::{Display, Write as _};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises while the process lives.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts below bounds, with sum and count.
    Histogram,
}

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// The media type of the form.
    pub const MEDIA_TYPE: &'static str = "text/plain; version=0.0.4";

    /// Begins a metric. Its samples follow.
    pub fn family(&mut self, name: &str, help: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} ");
        self.escaped(help, false);
        let _ = writeln!(self.0, "\n# TYPE {name} {kind}");
    }

    /// A sample of the metric begun last, by its labels. The name may carry
    /// the suffix of a histogram's part.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            self.0.push(if place == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            self.escaped(text, true);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, help, Kind::Counter);
        self.sample(name, &[], value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, help, Kind::Gauge);
        self.sample(name, &[], value);
    }

    /// A gauge that says whether something is so: 1 or 0.
    pub fn is(&mut self, name: &str, help: &str, is_so: bool) {
        self.gauge(name, help, u8::from(is_so));
    }

    /// A gauge that is always 1 and says what its labels say.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.family(name, help, Kind::Gauge);
        self.sample(name, labels, 1);
    }

    /// The page.
    pub fn finish(self) -> String {
        self.0
    }

    fn escaped(&mut self, text: &str, is_label: bool) {
        for character in text.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '"' if is_label => self.0.push_str("\\\""),
                other => self.0.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_version_0_0_4() {
        let mut text = Text::default();
        text.counter("things_total", "Things \\ so\nfar.", 7);
        text.is("odd", "Whether it is odd.", true);
        text.info("info", "What it is.", &[("why", "a \"b\"\n\\"), ("n", "1")]);
        text.gauge("seconds", "Seconds.", 0.0001);
        assert_eq!(
            text.finish(),
            "# HELP things_total Things \\\\ so\\nfar.\n# TYPE things_total counter\n\
             things_total 7\n\
             # HELP odd Whether it is odd.\n# TYPE odd gauge\nodd 1\n\
             # HELP info What it is.\n# TYPE info gauge\n\
             info{why=\"a \\\"b\\\"\\n\\\\\",n=\"1\"} 1\n\
             # HELP seconds Seconds.\n# TYPE seconds gauge\nseconds 0.0001\n"
        );
    }
}
