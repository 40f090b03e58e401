// The worker that decodes JPEG slices beside the page.

import { decodeGrey } from "./decode.js";

onmessage = async ({ data: { index, jpeg } }) => {
  try {
    const grey = await decodeGrey(jpeg);
    postMessage({ index, grey }, [grey.buffer]);
  } catch {
    postMessage({ index, grey: null });
  }
};
