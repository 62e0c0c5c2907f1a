//! The letters of the picture, so that it is the same on machines without fonts.
//!
//! Roboto by Google, under the Apache License 2.0 as asynq itself, cut down to ASCII and
//! three signs by fontTools: `pyftsubset --unicodes=U+0020-007E,U+00B7,U+2013,U+2026`.

use ab_glyph::{Font as _, FontRef, GlyphId, InvalidFont, PxScale, ScaleFont, point};

static ROBOTO: &[u8] = include_bytes!("Roboto-ASCII.ttf");

pub(super) struct Font(FontRef<'static>);

impl Font {
    pub(super) fn load() -> Result<Self, InvalidFont> {
        FontRef::try_from_slice(ROBOTO).map(Self)
    }

    /// How wide a text is, in pixels.
    pub(super) fn width(&self, text: &str, size: f32) -> f32 {
        let mut end = 0.0;
        self.lay(text, size, |_, _, after| end = after);
        end
    }

    /// Gives each pixel that a text touches, and how much of it is covered,
    /// 0 to 1. It begins at `x` and stands on the line `y`.
    pub(super) fn draw(&self, text: &str, size: f32, (x, y): (f32, f32), mut pixel: impl FnMut(i32, i32, f32)) {
        let scale = self.scale(size);
        self.lay(text, size, |id, from, _| {
            let glyph = id.with_scale_and_position(scale, point(x + from, y));
            // A space has no outline.
            if let Some(outline) = self.0.outline_glyph(glyph) {
                let corner = outline.px_bounds().min;
                let (left, top) = (corner.x as i32, corner.y as i32);
                outline.draw(|x, y, covered| pixel(left + x as i32, top + y as i32, covered.clamp(0.0, 1.0)));
            }
        });
    }

    /// Goes through the letters: which, where it begins, where the next does.
    fn lay(&self, text: &str, size: f32, mut each: impl FnMut(GlyphId, f32, f32)) {
        let font = self.0.as_scaled(self.scale(size));
        let (mut at, mut before) = (0.0, None);
        for letter in text.chars() {
            let id = font.glyph_id(letter);
            at += before.map_or(0.0, |before| font.kern(before, id));
            each(id, at, at + font.h_advance(id));
            at += font.h_advance(id);
            before = Some(id);
        }
    }

    /// Sizes are of the em square, as elsewhere; the library counts from the
    /// highest letter to the lowest.
    fn scale(&self, size: f32) -> PxScale {
        let em = self.0.units_per_em().unwrap_or(1000.0);
        PxScale::from(size * self.0.height_unscaled() / em)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_is_whole() {
        let font = Font::load().unwrap();
        for letter in (' '..='~').chain(['–', '·', '…']) {
            assert_ne!(font.0.glyph_id(letter).0, 0, "{letter:?}");
        }
        let (one, two) = (font.width("rows", 13.0), font.width("rowsrows", 13.0));
        assert!(
            (24.0..32.0).contains(&one) && (two - 2.0 * one).abs() < 2.0,
            "{one} {two}"
        );
        let mut touched = 0;
        font.draw("rows", 13.0, (0.0, 20.0), |x, y, covered| {
            assert!((-1..32).contains(&x) && (5..25).contains(&y) && (0.0..=1.0).contains(&covered));
            touched += 1;
        });
        assert!(touched > 50);
    }
}
