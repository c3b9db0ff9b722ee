//! Puts the report into a page, between two comments.

use std::path::Path;

/// The place for a report in a page: between `<!-- name: begin -->` and
/// `<!-- name: end -->`.
pub struct Page(
    /// The name in the comments.
    pub &'static str,
);

impl Page {
    /// Whether the page has a place for a report, so that nobody learns of it after
    /// the bench.
    pub fn check(&self, path: &Path) -> Result<(), String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let missing = || format!("{} has no {} before a {}", path.display(), self.begin(), self.end());
        self.with(&text, "").map(|_| ()).ok_or_else(missing)
    }

    /// Writes the report into the page.
    pub fn write_into(&self, path: &Path, report: &str) -> Result<(), String> {
        self.check(path)?;
        let cannot = |error: std::io::Error| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        std::fs::write(path, self.with(&text, report).unwrap_or(text)).map_err(cannot)
    }

    /// Shows the chart in the page: by its name alone where they share a folder.
    pub fn image(page: &Path, chart: &Path) -> String {
        let place = chart.file_name().filter(|_| page.parent() == chart.parent()).map_or(chart, Path::new);
        format!(
            "![Throughput by that of Redis, cell by cell; the tables below have the same figures]({})\n\n",
            place.display()
        )
    }

    /// The text with what is between the comments replaced.
    fn with(&self, text: &str, report: &str) -> Option<String> {
        let (begin, end) = (self.begin(), self.end());
        let (before, rest) = text.split_once(&begin)?;
        let (_, after) = rest.split_once(&end)?;
        Some(format!("{before}{begin}\n\n{}\n\n{end}{after}", report.trim()))
    }

    fn begin(&self) -> String {
        format!("<!-- {}: begin -->", self.0)
    }

    fn end(&self) -> String {
        format!("<!-- {}: end -->", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Page;

    #[test]
    fn a_chart_beside_the_page_is_shown_by_its_name() {
        let page = Path::new("docs/PAGE.md");
        assert!(Page::image(page, Path::new("docs/chart.svg")).ends_with("(chart.svg)\n\n"));
        assert!(Page::image(page, Path::new("/tmp/chart.svg")).ends_with("(/tmp/chart.svg)\n\n"));
    }

    #[test]
    fn only_what_is_between_the_comments_changes() {
        let page = "a\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nz\n";
        let once = Page("bench").with(page, "new\n").unwrap();
        assert_eq!(once, "a\n<!-- bench: begin -->\n\nnew\n\n<!-- bench: end -->\nz\n");
        assert_eq!(Page("bench").with(&once, "new").unwrap(), once);
        assert!(Page("bench").with("<!-- bench: end --><!-- bench: begin -->", "new").is_none());
    }
}
