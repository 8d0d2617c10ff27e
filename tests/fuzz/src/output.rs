//! When to write colours: the words alone, without the command line's parser; and how text is made
//! safe for a terminal.

#[path = "../../../src/output/escape.rs"]
#[allow(dead_code, reason = "the command line uses the rest of it")]
pub(crate) mod escape;

/// When to write colours.
pub(crate) mod style {
    /// When to write colours.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct ColorChoice(&'static str);

    impl ColorChoice {
        /// The choice with this name.
        pub(crate) fn from_word(word: &str) -> Option<Self> {
            let words = ["auto", "always", "never"];
            words.into_iter().find(|known| *known == word).map(Self)
        }

        /// The choice's name.
        pub(crate) fn as_str(self) -> &'static str {
            self.0
        }
    }
}
