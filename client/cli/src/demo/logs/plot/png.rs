//! A picture as PNG: its shapes painted, edges softened.

use std::io::{self, Write};

use png::{BitDepth, ColorType, Encoder, SrgbRenderingIntent};

use super::{
    font::Font,
    shape::{Anchor, Colour, Picture, Shape},
};

pub(super) fn write(picture: &Picture, font: &Font, out: &mut impl Write) -> io::Result<()> {
    let mut canvas = Canvas::new(picture.width, picture.height, picture.ground);
    for shape in &picture.shapes {
        canvas.paint(shape, font);
    }
    let mut encoder = Encoder::new(out, picture.width, picture.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_source_srgb(SrgbRenderingIntent::Perceptual);
    encoder.add_text_chunk("Software".into(), "asynq".into())?;
    encoder.add_text_chunk("Title".into(), picture.title.clone())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&canvas.pixels)?;
    Ok(writer.finish()?)
}

struct Canvas {
    width: i32,
    height: i32,
    /// Red, green and blue, row by row.
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: u32, height: u32, ground: Colour) -> Self {
        Self {
            width: width as i32,
            height: height as i32,
            pixels: rgb(ground).repeat((width * height) as usize),
        }
    }

    fn paint(&mut self, shape: &Shape, font: &Font) {
        match shape {
            Shape::Rect {
                x,
                y,
                width,
                height,
                colour,
            } => self.rect((*x, x + width), (*y, y + height), *colour),
            Shape::Text {
                x,
                y,
                anchor,
                size,
                colour,
                text,
            } => {
                let x = match anchor {
                    Anchor::Start => *x,
                    Anchor::Middle => x - font.width(text, *size) / 2.0,
                    Anchor::End => x - font.width(text, *size),
                };
                font.draw(text, *size, (x, *y), |x, y, covered| self.blend(x, y, *colour, covered));
            }
        }
    }

    /// What lies in a pixel only in part colours it in part.
    fn rect(&mut self, (left, right): (f32, f32), (top, bottom): (f32, f32), colour: Colour) {
        let covered = |pixel: i32, from: f32, to: f32| {
            let pixel = pixel as f32;
            (to.min(pixel + 1.0) - from.max(pixel)).clamp(0.0, 1.0)
        };
        for y in top.floor() as i32..bottom.ceil() as i32 {
            for x in left.floor() as i32..right.ceil() as i32 {
                self.blend(x, y, colour, covered(x, left, right) * covered(y, top, bottom));
            }
        }
    }

    fn blend(&mut self, x: i32, y: i32, colour: Colour, covered: f32) {
        if !(0..self.width).contains(&x) || !(0..self.height).contains(&y) {
            return;
        }
        let at = 3 * (y * self.width + x) as usize;
        for (pixel, new) in self.pixels[at..at + 3].iter_mut().zip(rgb(colour)) {
            *pixel = (f32::from(*pixel) + (f32::from(new) - f32::from(*pixel)) * covered).round() as u8;
        }
    }
}

fn rgb(colour: Colour) -> [u8; 3] {
    let [_, red, green, blue] = colour.to_be_bytes();
    [red, green, blue]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_within_a_pixel_colour_it_in_part() {
        let mut canvas = Canvas::new(4, 2, 0x000000);
        canvas.rect((0.5, 2.25), (-3.0, 1.0), 0xff8000);
        let row: Vec<_> = canvas.pixels[..12].chunks(3).map(|pixel| pixel[0]).collect();
        assert_eq!(row, [128, 255, 64, 0]);
        assert_eq!(canvas.pixels[3..6], [255, 128, 0]);
        assert_eq!(canvas.pixels[12..], [0; 12]);
    }
}
