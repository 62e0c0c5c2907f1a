//! A word of a command line with places for the task's arguments: `{name}` is a
//! member of its JSON object, `{}` the whole value, `{{` and `}}` are braces.

use serde::Deserialize;

use super::arguments::{Arguments, Unfit};

/// One word, parsed. What is put into it is never looked at again, so a value
/// that looks like a placeholder is only text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Member(String),
    Whole,
}

/// Why a word is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("a {{ without its }} in {0:?}; a brace that stands for itself is written {{{{")]
    Open(String),
    #[error("a }} without its {{ in {0:?}; a brace that stands for itself is written }}}}")]
    Closed(String),
    #[error(
        "{{{name}}} in {word:?} is no placeholder: a name is of letters, digits, _ - and .; \
         a brace that stands for itself is written {{{{ or }}}}"
    )]
    Name { name: String, word: String },
    #[error("{0:?} holds a NUL, which no program's argument can")]
    Nul(String),
}

impl Template {
    /// The word itself, if nothing is to be put into it.
    pub(super) fn literal(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Part::Literal(word)] => Some(word),
            _ => None,
        }
    }

    /// Puts the arguments in.
    ///
    /// # Errors
    /// Names the member that is missing or does not fit.
    pub(super) fn render(&self, arguments: &Arguments<'_>) -> Result<String, Unfit> {
        let mut word = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => word.push_str(text),
                Part::Member(name) => word.push_str(&arguments.member(name)?),
                Part::Whole => word.push_str(&arguments.whole()?),
            }
        }
        Ok(word)
    }

    fn push(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Part::Literal(text)) => text.push(c),
            _ => self.0.push(Part::Literal(c.into())),
        }
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(word: String) -> Result<Self, TemplateError> {
        if word.contains('\0') {
            return Err(TemplateError::Nul(word));
        }
        let mut template = Self(Vec::new());
        let mut rest = word.as_str();
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            if let ('{' | '}', Some(behind)) = (c, rest.strip_prefix(c)) {
                template.push(c);
                rest = behind;
            } else if c == '{' {
                let (name, behind) = rest.split_once('}').ok_or_else(|| TemplateError::Open(word.clone()))?;
                template.0.push(placeholder(name, &word)?);
                rest = behind;
            } else if c == '}' {
                return Err(TemplateError::Closed(word));
            } else {
                template.push(c);
            }
        }
        Ok(template)
    }
}

fn placeholder(name: &str, word: &str) -> Result<Part, TemplateError> {
    let allowed = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    match name {
        "" => Ok(Part::Whole),
        name if name.chars().all(allowed) => Ok(Part::Member(name.into())),
        name => Err(TemplateError::Name {
            name: name.into(),
            word: word.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use asynq_worker::Payload;
    use proptest::prelude::*;

    use super::*;

    fn template(word: &str) -> Result<Template, String> {
        Template::try_from(word.to_owned()).map_err(|error| error.to_string())
    }

    fn rendered(word: &str, json: &str) -> Result<String, String> {
        let payload = Payload::bytes("application/json", json.to_owned());
        let arguments = Arguments::of(&payload).map_err(|unfit| unfit.to_string())?;
        let template = template(word).unwrap();
        template.render(&arguments).map_err(|unfit| unfit.to_string())
    }

    #[test]
    fn members_and_the_whole_value_are_put_in() {
        let object = r#"{"s": "a b", "n": 1.50, "big": 123456789012345678901234567890, "t": true, "u": null,
                         "l": [1, {"x": " y "}], "größe-1.2": "ä"}"#;
        for (word, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("{s}", "a b"),
            ("--s={s}!", "--s=a b!"),
            ("{n}{n}", "1.501.50"),
            ("{big}", "123456789012345678901234567890"),
            ("{t}{u}", "truenull"),
            ("{l}", r#"[1,{"x":" y "}]"#),
            ("{größe-1.2}", "ä"),
            ("{{s}}", "{s}"),
            ("{{{s}}}", "{a b}"),
            ("}}{{", "}{"),
        ] {
            assert_eq!(rendered(word, object).as_deref(), Ok(expected), "{word}");
        }
        assert_eq!(rendered("{}", r#" "as\tit is" "#).as_deref(), Ok("as\tit is"));
        assert_eq!(rendered("[{}]", r#"{"a" : [1, 2]}"#).as_deref(), Ok(r#"[{"a":[1,2]}]"#));
    }

    #[test]
    fn what_is_put_in_is_not_looked_at_again() {
        let nasty = r#"{"a": "{b}", "b": "}}{{ $(rm -rf /) `x` ; | & > < * ? ~ \" '"}"#;
        assert_eq!(rendered("{a}", nasty).as_deref(), Ok("{b}"));
        assert_eq!(
            rendered("{b}", nasty).as_deref(),
            Ok("}}{{ $(rm -rf /) `x` ; | & > < * ? ~ \" '")
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (word, json, said) in [
            ("{size}", "{}", "no member \"size\""),
            ("{size}", "[1]", "\"size\""),
            ("{size}", "null", "\"size\""),
            ("{s}", r#"{"s": "a\u0000b"}"#, "\"s\" holds a NUL"),
            ("{}", r#""\u0000""#, "hold a NUL"),
            ("{s}", r#"{"s": "\ud800"}"#, "\"s\""),
        ] {
            let error = rendered(word, json).unwrap_err();
            assert!(error.contains(said), "{word} of {json}: {error}");
        }
    }

    #[test]
    fn bad_words_are_refused() {
        for (word, said) in [
            ("{", "a { without its }"),
            ("a{b", "a { without its }"),
            ("}", "a } without its {"),
            ("{a}}", "a } without its {"),
            ("{a b}", "{a b} in \"{a b}\" is no placeholder"),
            ("{.a[]: x}", "no placeholder"),
            ("{a{b}", "no placeholder"),
            ("a\0b", "NUL"),
        ] {
            let error = template(word).unwrap_err();
            assert!(error.contains(said), "{word}: {error}");
        }
        assert_eq!(template("{{ls}}").unwrap().literal(), Some("{ls}"));
        assert_eq!(template("").unwrap().literal(), Some(""));
        assert_eq!(template("{ls}").unwrap().literal(), None);
    }

    proptest! {
        #[test]
        fn any_string_gets_through_byte_for_byte(value in "[^\0]*", before in "[^{}\0]*", after in "[^{}\0]*") {
            let json = serde_json::json!({ "v": value }).to_string();
            let word = format!("{before}{{v}}{after}");
            prop_assert_eq!(rendered(&word, &json), Ok(format!("{before}{value}{after}")));
        }

        #[test]
        fn doubled_braces_make_any_text_a_literal(text in "[^\0]*") {
            let word = text.replace('{', "{{").replace('}', "}}");
            let template = template(&word).unwrap();
            prop_assert_eq!(template.literal(), Some(text.as_str()));
        }

        #[test]
        fn no_word_makes_the_parser_panic(word in "[{}a.\0]*") {
            let _ = template(&word);
        }
    }
}
