//! Which value of a JSON document a parser's error is about, by the error's position.
//!
//! serde_json tells where it stood: behind a scalar that does not fit, before an array or object of the
//! wrong kind, behind an object that lacks a member. To find the value from that costs nothing until
//! something is wrong; a parser that kept the path all along was a sixth of the program.

/// The JSON pointer of the value an error at this line and column (both as serde_json counts them) is
/// about, in a document that is valid JSON. Behind an object stands the parser when one is `missing` in it,
/// and also when the last one does not please a type's own rule.
pub fn pointer_at(document: &[u8], line: usize, column: usize, missing: bool) -> String {
    let before: usize =
        document.split_inclusive(|b| *b == b'\n').take(line.max(1) - 1).map(<[u8]>::len).sum();
    let mut walk = Walk {
        document,
        at: 0,
        wanted: before + column,
        missing,
        path: Vec::new(),
        ended: Vec::new(),
        found: None,
    };
    walk.value();
    walk.found.unwrap_or_default().concat()
}

struct Walk<'a> {
    document: &'a [u8],
    at: usize,
    wanted: usize,
    missing: bool,
    /// The way to the value at hand, as the parts of a pointer.
    path: Vec<String>,
    /// The way to the last value that ended before the wanted place.
    ended: Vec<String>,
    found: Option<Vec<String>>,
}

impl Walk<'_> {
    fn byte(&self) -> u8 {
        self.document.get(self.at).copied().unwrap_or_default()
    }

    /// Skips white space, and separators where the document is known to be valid.
    fn skip(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\r' | b'\n' | b',' | b':') {
            self.at += 1;
        }
    }

    fn value(&mut self) {
        self.skip();
        let start = self.at;
        match self.byte() {
            b'{' => self.members(),
            b'[' => self.items(),
            b'"' => self.string(),
            _ => {
                while !matches!(self.byte(), b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' | 0)
                {
                    self.at += 1;
                }
            }
        }
        if self.found.is_some() {
            return;
        }
        let last = self.ended.get(..=self.path.len()).filter(|last| last.starts_with(&self.path));
        let object = self.document.get(start) == Some(&b'{');
        if let (Some(last), true, false) = (last, object && self.at == self.wanted, self.missing) {
            self.found = Some(last.to_vec());
        } else if start == self.wanted || self.at == self.wanted {
            self.found = Some(self.path.clone());
        } else if self.at > self.wanted && start < self.wanted {
            // Inside: what ended last in here, if anything did, else this.
            let inside = self.ended.starts_with(&self.path);
            self.found = Some(if inside { self.ended.clone() } else { self.path.clone() });
        } else if self.at < self.wanted {
            self.ended.clone_from(&self.path);
        }
    }

    fn string(&mut self) {
        self.at += 1;
        while self.at < self.document.len() && self.byte() != b'"' {
            self.at += if self.byte() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
    }

    fn members(&mut self) {
        self.at += 1;
        loop {
            self.skip();
            if self.byte() != b'"' || self.found.is_some() {
                self.at += 1;
                return;
            }
            let start = self.at;
            self.string();
            let name = self.document.get(start..self.at).unwrap_or_default();
            let name: String = serde_json::from_slice(name).unwrap_or_default();
            self.path.push(format!("/{}", crate::error::escape(&name)));
            self.value();
            self.path.pop();
        }
    }

    fn items(&mut self) {
        self.at += 1;
        for index in 0.. {
            self.skip();
            if matches!(self.byte(), b']' | 0) || self.found.is_some() {
                self.at += 1;
                return;
            }
            self.path.push(format!("/{index}"));
            self.value();
            self.path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_about_the_value_they_stand_at() {
        let json = "{\"a/b\": [1, \"x\\\"]\",\n {\"c\" : 3 } ], \"d\": {\"e\": []}}";
        let at = |text: &str, behind: bool| {
            let index = json.find(text).unwrap_or_default() + if behind { text.len() } else { 0 };
            let line = json[..index].matches('\n').count() + 1;
            let column = index - json[..index].rfind('\n').map_or(0, |newline| newline + 1);
            pointer_at(json.as_bytes(), line, column, true)
        };
        assert_eq!(at("[1", false), "/a~1b", "before an array of the wrong kind");
        assert_eq!(at("[1", true), "/a~1b/0", "behind a number");
        assert_eq!(at("\"x\\\"]\"", true), "/a~1b/1", "behind a string");
        assert_eq!(at(": 3", true), "/a~1b/2/c");
        assert_eq!(at("3 }", true), "/a~1b/2", "behind an object that lacks something");
        assert_eq!(at("3 ", true), "/a~1b/2/c", "what ended last");
        assert_eq!(at("[]", false), "/d/e");
        assert_eq!(at("[]}}", true), "", "the whole document");
        let own_rule = r#"{"a": {"b": 1, "c": {"d": 2}}}"#;
        assert_eq!(pointer_at(own_rule.as_bytes(), 1, own_rule.len() - 1, false), "/a/c");
    }
}
