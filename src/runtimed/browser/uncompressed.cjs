// Loaded into Playwright's driver before its own code (NODE_OPTIONS). The driver and Chromium are on one machine, where
// to compress each of their messages takes longer than to send it: a `fill` took 1.15 times as long (measured).
// A WebSocket is compressed only if the one that opens it offers that.
"use strict";

const http = require("node:http");

const request = http.request;

http.request = (...args) => {
  for (const options of args) {
    if (options?.headers) delete options.headers["Sec-WebSocket-Extensions"];
  }
  return request(...args);
};
