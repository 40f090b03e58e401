// JPEG slices to grey levels, for a worker or, where there is none, for the page.

let canvas = null;

export async function decodeGrey(jpeg) {
  const blob = new Blob([jpeg], { type: "image/jpeg" });
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  if (!canvas || canvas.width !== width || canvas.height !== height) {
    canvas = newCanvas(width, height);
  }
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const colours = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  const grey = new Uint8Array(colours.length);
  for (let at = 0; at < grey.length; at += 1) grey[at] = colours[at] & 255;
  return grey;
}

function newCanvas(width, height) {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  const made = document.createElement("canvas");
  Object.assign(made, { width, height });
  return made;
}
