//! A picture as SVG.

use std::io::{self, Write};

use super::{
    font::Font,
    shape::{Anchor, Picture, Shape},
};

const FONTS: &str = "Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif";

/// Each text is held to the width it has in our font, so that nothing overlaps
/// where the reader has another.
pub(super) fn write(picture: &Picture, font: &Font, out: &mut impl Write) -> io::Result<()> {
    let Picture { width, height, .. } = picture;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"{FONTS}\">"
    )?;
    writeln!(out, "<title>{}</title>", escaped(&picture.title))?;
    writeln!(
        out,
        "<rect width=\"100%\" height=\"100%\" fill=\"#{:06x}\"/>",
        picture.ground
    )?;
    for shape in &picture.shapes {
        match shape {
            Shape::Rect {
                x,
                y,
                width,
                height,
                colour,
            } => writeln!(
                out,
                "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"#{colour:06x}\"/>"
            ),
            Shape::Text {
                x,
                y,
                anchor,
                size,
                colour,
                text,
            } => {
                let anchor = match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                };
                let width = font.width(text, *size);
                writeln!(
                    out,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" \
                     textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"#{colour:06x}\">{}</text>",
                    escaped(text)
                )
            }
        }?;
    }
    writeln!(out, "</svg>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
