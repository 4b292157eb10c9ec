-- What wrk sends, from the environment, and its summary on one line.
wrk.method = os.getenv("BENCH_METHOD") or "GET"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_TOKEN")
local length = tonumber(os.getenv("BENCH_BODY") or "0")
if length > 0 then
  wrk.body = string.rep("x", length)
end

if os.getenv("BENCH_VARY") then
  local number = 0
  request = function()
    number = number + 1
    wrk.headers["X-Trace"] = number
    return wrk.format()
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format("RESULT %d %d %d %d %d",
    summary.requests, errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end
