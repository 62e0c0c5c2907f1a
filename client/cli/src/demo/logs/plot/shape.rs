//! What a picture is made of. Lengths are pixels, from the top left corner.

/// A colour as `0xrrggbb`.
pub(super) type Colour = u32;

/// Shapes on a ground of one colour, later ones over earlier ones.
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) ground: Colour,
    /// What it shows, in a sentence.
    pub(super) title: String,
    pub(super) shapes: Vec<Shape>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Shape {
    Rect {
        x: f32,
        y: f32,
        width: f32,
        height: f32,
        colour: Colour,
    },
    Text {
        /// Of its beginning, middle or end.
        x: f32,
        /// Of the line it stands on.
        y: f32,
        anchor: Anchor,
        /// Of its letters, as fonts have it.
        size: f32,
        colour: Colour,
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}
