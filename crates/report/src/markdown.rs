//! Markdown: aligned tables that read well in a terminal, too, escaping, and access to the values of a frame.

use polars::prelude::*;

/// On which side a column's texts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A table with these headings. Cells are Markdown already; what comes from a manifest has passed [`escape`] or [`code`].
pub(crate) fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([columns[column].0.chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).zip(columns).map(|((text, &width), (_, align))| match align {
            Align::Left => format!(" {text:<width$} "),
            Align::Right => format!(" {text:>width$} "),
        });
        format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
    };
    let rule = widths.iter().zip(columns).map(|(&width, (_, align))| match align {
        Align::Left => format!("{:-<w$}", "", w = width + 2),
        Align::Right => format!("{:-<w$}:", "", w = width + 1),
    });
    let mut text = line(&mut columns.iter().map(|(name, _)| *name));
    text.push_str(&format!("|{}|\n", rule.collect::<Vec<_>>().join("|")));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Plain text that Markdown must not read as markup.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let letters: Vec<char> = text.chars().collect();
    for (i, &letter) in letters.iter().enumerate() {
        let inside_word = |j: Option<usize>| j.and_then(|j| letters.get(j)).is_some_and(|c| c.is_alphanumeric());
        match letter {
            '\n' | '\r' | '\t' => safe.push(' '),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // An underscore within a word is no markup.
            '_' if inside_word(i.checked_sub(1)) && inside_word(Some(i + 1)) => safe.push('_'),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '~' | '#' => {
                safe.push('\\');
                safe.push(letter);
            }
            _ => safe.push(letter),
        }
    }
    safe
}

/// Text in code style, e.g. an id or a command; inside a table, too.
pub(crate) fn code(text: &str) -> String {
    let text = text.replace(['\n', '\r', '\t'], " ").replace('|', "\\|");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let gap = if longest > 0 { " " } else { "" };
    format!("{fence}{gap}{text}{gap}{fence}")
}

/// A frame's values by column and row.
pub(crate) struct Values<'a>(pub(crate) &'a DataFrame);

impl Values<'_> {
    /// A text; `None` where there is none.
    pub(crate) fn text(&self, column: &str, row: usize) -> Option<String> {
        let value = self.0.column(column).and_then(|column| column.get(row)).unwrap_or(AnyValue::Null);
        value.get_str().map(str::to_owned)
    }

    /// A number; `None` where there is none.
    pub(crate) fn number(&self, column: &str, row: usize) -> Option<f64> {
        let value = self.0.column(column).and_then(|column| column.get(row)).unwrap_or(AnyValue::Null);
        value.extract::<f64>()
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.0.height()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_markup_is_escaped() {
        assert_eq!(escape("a|b *c* <d> [e](f) `g`"), "a\\|b \\*c\\* &lt;d&gt; \\[e\\](f) \\`g\\`");
        assert_eq!(escape("ib0_lb1 _x_\ny"), "ib0_lb1 \\_x\\_ y");
    }

    #[test]
    fn code_survives_backticks_and_pipes() {
        assert_eq!(code("b/hard"), "`b/hard`");
        assert_eq!(code("a`b|c"), "`` a`b\\|c ``");
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_right() {
        let text = table(&[("Cell", Align::Left), ("Ours", Align::Right)], &[vec!["é".into(), "1.5".into()]]);
        assert_eq!(text, "| Cell | Ours |\n|------|-----:|\n| é    |  1.5 |\n");
    }

    #[test]
    fn missing_values_are_none() {
        let frame = df!("a" => [Some(1.5), None], "b" => [None, Some("x")], "c" => [3u32, 4]).unwrap();
        let values = Values(&frame);
        assert_eq!([values.number("a", 0), values.number("a", 1), values.number("c", 1)], [Some(1.5), None, Some(4.0)]);
        assert_eq!([values.text("b", 0), values.text("b", 1)], [None, Some("x".into())]);
    }
}
