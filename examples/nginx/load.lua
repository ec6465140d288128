-- The load that speed is measured with: the same mixture over and over, on connections that are kept. At the end one
-- line of JSON (../micro/README.md).
local paths = {
    "/index.html", "/style.css", "/index.html", "/large.bin", "/nothing", "/index.html", "/proxy/style.css", "/index.html",
}
local at = 0
-- With $KPRUNE_LOAD_PIPELINE, so many small requests at once, to see many in little time; of their latencies wrk does not
-- know enough.
local pipeline = tonumber(os.getenv("KPRUNE_LOAD_PIPELINE") or "1")
local together

init = function()
    together = string.rep(wrk.format("GET", "/index.html"), pipeline)
end

request = function()
    if pipeline > 1 then
        return together
    end
    at = at % #paths + 1
    return wrk.format("GET", paths[at])
end

done = function(summary, latency, requests)
    local errors = summary.errors
    local lost = errors.connect + errors.read + errors.write + errors.timeout
    local times = pipeline > 1 and "" or string.format(', "quantiles_ms": {"50": %.3f, "99": %.3f}',
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3)
    io.write(string.format('{"requests": %d, "seconds": %.4f, "lost": %d%s}\n',
        summary.requests, summary.duration / 1e6, lost, times))
end
