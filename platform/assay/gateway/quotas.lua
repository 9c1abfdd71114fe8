-- Quotas in one call. Time is the server's (TIME), so that gateways need not agree on theirs.
--
-- reserve: ARGV = "reserve", request id, tokens, lifetime in ms, then (key, kind, limit) per limit.
--   All limits must have room; then all are charged and a reservation is kept under
--   assay:quota:reservation:<id>. Returns, as one text that is quick to read, the index of the limit
--   that stopped it or 0, the wait in ms or -1 for never, then (remaining, reset in ms) per limit.
-- settle: ARGV = "settle", request id, tokens really used, refund (1: it never ran), usage stream,
--   usage entry or "". Takes the reservation away, so that a second call charges nothing, and adds
--   the entry. Returns 1 when it found the reservation.
--
-- Kinds: requests_per_minute and tokens_per_minute are sliding windows of 60 s in slots of 5 s (a
-- slot counts until all of it has left, so no 60 s ever hold more than the limit); tokens_per_day is
-- the UTC day; concurrent_requests is a set by deadline, so that a gateway that died frees its slots.

local SLOT, WINDOW, DAY = 5000, 60000, 86400000

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function read_window(key, now)
  local flat = redis.call('HGETALL', key)
  local state = {used = 0, slots = {}}
  for i = 1, #flat, 2 do
    local slot, count = tonumber(flat[i]), tonumber(flat[i + 1])
    if (slot + 1) * SLOT <= now - WINDOW then
      redis.call('HDEL', key, flat[i])
    elseif count > 0 then
      state.used = state.used + count
      state.slots[#state.slots + 1] = {slot, count}
    end
  end
  return state
end

local function leaves_at(slot) return (slot + 1) * SLOT + WINDOW end

local function window_wait(state, surplus, now)
  table.sort(state.slots, function(a, b) return a[1] < b[1] end)
  local freed = 0
  for _, entry in ipairs(state.slots) do
    freed = freed + entry[2]
    if freed >= surplus then return leaves_at(entry[1]) - now end
  end
  return -1
end

local function window_reset(state, now)
  local newest = nil
  for _, entry in ipairs(state.slots) do
    if newest == nil or entry[1] > newest then newest = entry[1] end
  end
  return newest and leaves_at(newest) - now or 0
end

local function read_limit(key, kind, now)
  if kind == 'concurrent_requests' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    return {used = redis.call('ZCARD', key), reset = 1000}
  elseif kind == 'tokens_per_day' then
    local day = key .. ':' .. math.floor(now / DAY)
    return {key = day, used = tonumber(redis.call('GET', day) or '0'), reset = DAY - now % DAY}
  end
  local state = read_window(key, now)
  state.reset = window_reset(state, now)
  return state
end

local function wait_for(kind, state, cost, limit, now)
  if cost > limit then return -1 end
  if kind == 'concurrent_requests' or kind == 'tokens_per_day' then return state.reset end
  return window_wait(state, state.used + cost - limit, now)
end

local function charge(key, kind, state, cost, request, deadline, now)
  if kind == 'concurrent_requests' then
    redis.call('ZADD', key, deadline, request)
    redis.call('PEXPIREAT', key, deadline + 1000, 'GT')
    redis.call('PEXPIREAT', key, deadline + 1000, 'NX')
    return {key, kind, ''}
  elseif kind == 'tokens_per_day' then
    redis.call('INCRBY', state.key, cost)
    redis.call('PEXPIRE', state.key, 2 * DAY)
    return {state.key, kind, ''}
  end
  local slot = tostring(math.floor(now / SLOT))
  redis.call('HINCRBY', key, slot, cost)
  redis.call('PEXPIRE', key, WINDOW + 2 * SLOT)
  return {key, kind, slot}
end

local function reserve()
  local request, tokens = ARGV[2], tonumber(ARGV[3])
  local now = now_ms()
  local deadline = now + tonumber(ARGV[4])
  local limits, answer, stopped, longest = {}, {}, 0, 0
  for i = 5, #ARGV, 3 do
    local key, kind, limit = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
    local cost = (kind == 'tokens_per_minute' or kind == 'tokens_per_day') and tokens or 1
    local state = read_limit(key, kind, now)
    limits[#limits + 1] = {key, kind, state, cost}
    local left = limit - state.used
    if left < cost then
      local wait = wait_for(kind, state, cost, limit, now)
      if stopped == 0 or wait == -1 or (longest ~= -1 and wait > longest) then
        stopped, longest = #limits, wait
      end
    end
    answer[#answer + 1] = math.max(0, left)
    answer[#answer + 1] = state.reset
  end
  if stopped == 0 then
    local charged = {}
    for i, one in ipairs(limits) do
      charged[i] = charge(one[1], one[2], one[3], one[4], request, deadline, now)
      answer[i * 2 - 1] = math.max(0, answer[i * 2 - 1] - one[4])
      if answer[i * 2] == 0 then answer[i * 2] = WINDOW end
    end
    redis.call('SET', 'assay:quota:reservation:' .. request,
      cjson.encode({tokens = tokens, charged = charged}), 'PX', tonumber(ARGV[4]))
  end
  local numbers = {string.format('%d', stopped), string.format('%.0f', longest)}
  for _, number in ipairs(answer) do numbers[#numbers + 1] = string.format('%.0f', number) end
  return table.concat(numbers, ' ')
end

local function settle()
  local request, used, refund = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
  if ARGV[6] ~= '' then redis.call('XADD', ARGV[5], '*', 'entry', ARGV[6]) end
  local name = 'assay:quota:reservation:' .. request
  local kept = redis.call('GET', name)
  if not kept then return 0 end
  redis.call('DEL', name)
  local reservation = cjson.decode(kept)
  local difference = used - reservation.tokens
  for _, one in ipairs(reservation.charged) do
    local key, kind, slot = one[1], one[2], one[3]
    if kind == 'concurrent_requests' then
      redis.call('ZREM', key, request)
    elseif kind == 'tokens_per_day' then
      if redis.call('EXISTS', key) == 1 then redis.call('INCRBY', key, difference) end
    elseif redis.call('HEXISTS', key, slot) == 1 then
      if kind == 'tokens_per_minute' then
        redis.call('HINCRBY', key, slot, difference)
      elseif refund then
        redis.call('HINCRBY', key, slot, -1)
      end
    end
  end
  return 1
end

if ARGV[1] == 'reserve' then return reserve() end
return settle()
