-- Quotas in one call. Time is the server's (TIME), because the clocks of gateways may differ.
--
-- Keys:
--   assay:quota:<kind>:<subject>          per minute: a hash of 5 s slots; at once: a set by deadline
--   assay:quota:day:<date>:<subject>      a hash: each unit (tokens, images, …), and reserved amounts
--   assay:quota:month:<month>:<subject>   a hash: each unit, money, device (ms), and amounts reserved
--                                         and held
--   assay:quota:reservation:<id>          amounts reserved by one request, until it is settled
--   assay:quota:deadlines                 reservations by the time of their automatic release
--   assay:quota:settled:<id>              marks a settled request: a second call changes nothing
--   assay:quota:admitted                  a hash: the usage entry of each running request, used if its
--                                         gateway dies before it settles the request
--   assay:quota:admitted:deadlines        these requests by the time after which the gateway is dead
--   assay:quota:waiting:<queue>           departments with waiting requests, by virtual time
--   assay:quota:waiting:<queue>:<department>, assay:quota:turns:<queue>   see `advance`
--   assay:quota:stops:<date>              number of requests that each limit stopped
--   assay:quota:ready                     set while days and months repeat the ledger; lost by a flush
--
-- Days and months are counted for every subject of a use, limited or not, so that a new limit includes
-- earlier use. The operations and their answers are described at each function.

local PREFIX = 'assay:quota:'
local SLOT, WINDOW, DAY = 5000, 60000, 86400000
local KEEP_DAY, KEEP_MONTH = 3 * DAY, 40 * DAY
local SETTLED_FOR, RECLAIMED_AT_ONCE = 900000, 8
local DEADLINES, READY = PREFIX .. 'deadlines', PREFIX .. 'ready'
local ADMITTED, ADMITTED_UNTIL = PREFIX .. 'admitted', PREFIX .. 'admitted:deadlines'
local floor = math.floor

-- kind → window, and field in its hash. A limit on a unit of use is named <unit>_per_<window>: the
-- callers know the units, and only those in use are looked up.
local KINDS = {
  requests_per_minute = {window = 'minute', unit = 'requests'},
  concurrent_requests = {window = 'now', unit = 'requests'},
  money_per_month = {window = 'month', unit = 'money'},
  gpu_seconds_per_month = {window = 'month', unit = 'device'},
}
local function kind_of(name)
  local known = KINDS[name]
  if known then return known end
  local unit, window = string.match(name, '^(.+)_per_(%a+)$')
  return {window = window, unit = unit}
end

local function number(text) return string.format('%.0f', text) end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
end

-- Year, month and day from a number of days since 1970-01-01, and that number for the first day of a
-- month: http://howardhinnant.github.io/date_algorithms.html
local function civil(days)
  local z = days + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - floor((153 * mp + 2) / 5) + 1
end

local function first_day(year, month)
  local y = year - (month <= 2 and 1 or 0)
  local era = floor(y / 400)
  local yoe = y - era * 400
  local doe = yoe * 365 + floor(yoe / 4) - floor(yoe / 100) + floor((153 * ((month + 9) % 12) + 2) / 5)
  return era * 146097 + doe - 719468
end

-- Return the day and the month around a moment: their names and their ends.
local function calendar(at)
  local year, month, day = civil(floor(at / DAY))
  local following = month == 12 and first_day(year + 1, 1) or first_day(year, month + 1)
  local name = string.format('%04d-%02d', year, month)
  return {
    day = string.format('%s-%02d', name, day), day_end = (floor(at / DAY) + 1) * DAY,
    month = name, month_end = following * DAY,
  }
end

local function budget_key(window, dates, subject)
  return PREFIX .. window .. ':' .. dates[window] .. ':' .. subject
end

-- Set a counter's expiry only on its first use; later uses in its window do not change it.
local function add(key, field, amount, keep)
  if amount ~= 0 and redis.call('HINCRBY', key, field, number(amount)) == amount then
    redis.call('PEXPIRE', key, keep)
  end
end

local function read_slots(key, now)
  local flat = redis.call('HGETALL', key)
  local state = {used = 0, slots = {}, left = {}}
  for i = 1, #flat, 2 do
    local slot, count = tonumber(flat[i]), tonumber(flat[i + 1])
    if (slot + 1) * SLOT <= now - WINDOW then
      state.left[#state.left + 1] = flat[i]
    elseif count > 0 then
      state.used = state.used + count
      state.slots[#state.slots + 1] = {slot, count}
    end
  end
  return state
end

local function leaves_at(slot) return (slot + 1) * SLOT + WINDOW end

local function slots_wait(state, surplus, now)
  table.sort(state.slots, function(a, b) return a[1] < b[1] end)
  local freed = 0
  for _, entry in ipairs(state.slots) do
    freed = freed + entry[2]
    if freed >= surplus then return leaves_at(entry[1]) - now end
  end
  return -1
end

local function slots_reset(state, now)
  local newest = nil
  for _, entry in ipairs(state.slots) do
    if newest == nil or entry[1] > newest then newest = entry[1] end
  end
  return newest and leaves_at(newest) - now or 0
end

-- Return {used, reserved, reset (ms until room is back), key}; change nothing.
local function read_limit(kind, what, subject, now, dates)
  if what.window == 'minute' then
    local key = PREFIX .. kind .. ':' .. subject
    local state = read_slots(key, now)
    state.key, state.reserved, state.reset = key, 0, slots_reset(state, now)
    return state
  elseif what.window == 'now' then
    local key = PREFIX .. kind .. ':' .. subject
    local live = redis.call('ZCOUNT', key, '(' .. number(now), '+inf')
    return {key = key, used = 0, reserved = live, reset = 1000}
  end
  local key = budget_key(what.window, dates, subject)
  local found = redis.call('HMGET', key, what.unit, what.unit .. '_reserved', what.unit .. '_held')
  local reserved = tonumber(found[2] or '0') + tonumber(found[3] or '0')
  local reset = dates[what.window .. '_end'] - now
  return {key = key, used = tonumber(found[1] or '0'), reserved = reserved, reset = reset}
end

local function wait_for(one, now)
  if one.cost > one.limit then return -1 end
  if one.what.window ~= 'minute' then return one.state.reset end
  return slots_wait(one.state, one.state.used + one.cost - one.limit, now)
end

-- Charge one limit; return the data to undo the charge.
local function charge(one, request, deadline, now)
  local key, what, cost = one.state.key, one.what, one.cost
  if what.window == 'now' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', number(now))
    redis.call('ZADD', key, number(deadline), request)
    local over = number(deadline + 1000)
    if redis.call('PEXPIREAT', key, over, 'GT') == 0 then redis.call('PEXPIREAT', key, over, 'NX') end
    return {key, 'now', '', '1'}
  elseif what.window == 'minute' then
    local slot = number(floor(now / SLOT))
    if #one.state.left > 0 then redis.call('HDEL', key, unpack(one.state.left)) end
    add(key, slot, cost, WINDOW + 2 * SLOT)
    return {key, what.unit, slot, number(cost)}
  end
  local field = what.unit .. '_reserved'
  add(key, field, cost, what.window == 'day' and KEEP_DAY or KEEP_MONTH)
  return {key, 'budget', field, number(cost)}
end

-- Release a reservation, of which `units` were used; with `refund`, the request itself does not count.
local function release(request, units, refund)
  local name = PREFIX .. 'reservation:' .. request
  local kept = redis.call('GET', name)
  redis.call('ZREM', DEADLINES, request)
  if not kept then return false end
  redis.call('DEL', name)
  for _, one in ipairs(cjson.decode(kept)) do
    local key, what, field, amount = one[1], one[2], one[3], tonumber(one[4])
    if what == 'now' then
      redis.call('ZREM', key, request)
    elseif what == 'budget' then
      if redis.call('HEXISTS', key, field) == 1 then
        redis.call('HINCRBY', key, field, number(-amount))
      end
    elseif redis.call('HEXISTS', key, field) == 1 then
      if what ~= 'requests' then
        redis.call('HINCRBY', key, field, number(units - amount))
      elseif refund then
        redis.call('HINCRBY', key, field, -1)
      end
    end
  end
  return true
end

local function give_back_expired(now, most)
  local expired = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', number(now), 'LIMIT', 0, most)
  for _, request in ipairs(expired) do release(request, 0, false) end
  return #expired
end

local function count_stop(dates, one)
  local key = PREFIX .. 'stops:' .. dates.day
  redis.call('HINCRBY', key, one.kind .. '|' .. one.subject, 1)
  redis.call('PEXPIRE', key, KEEP_DAY)
end

-- Read the limits in ARGV from `first` on, four values each: subject, kind, limit, shadow (1 or 0).
local function read_limits(first, costs, now, dates)
  local limits, needs_ledger = {}, false
  for i = first, #ARGV, 4 do
    local one = {subject = ARGV[i], kind = ARGV[i + 1], limit = tonumber(ARGV[i + 2])}
    one.shadow = ARGV[i + 3] == '1'
    local what = kind_of(one.kind)
    one.what = what
    one.cost = costs[what.unit] or 0  -- 0 if the request has another unit
    one.state = read_limit(one.kind, what, one.subject, now, dates)
    one.left = one.limit - one.state.used - one.state.reserved
    one.over = one.cost > 0 and one.left < one.cost
    needs_ledger = needs_ledger or what.window == 'day' or what.window == 'month'
    limits[#limits + 1] = one
  end
  return limits, needs_ledger and redis.call('EXISTS', READY) == 0
end

-- Return the limit that stops the request, or 0; of several, the one with the longest wait for room.
local function stopping(limits, now)
  local stopped, longest = 0, 0
  for i, one in ipairs(limits) do
    if one.over and not one.shadow then
      local wait = wait_for(one, now)
      if stopped == 0 or (longest ~= -1 and (wait == -1 or wait > longest)) then
        stopped, longest = i, wait
      end
    end
  end
  return stopped, longest
end

local function answer(limits, stopped, wait, now)
  local numbers = {number(stopped), number(wait), number(now)}
  for _, one in ipairs(limits) do
    numbers[#numbers + 1] = number(math.max(0, one.left))
    numbers[#numbers + 1] = number(one.state.reset)
    numbers[#numbers + 1] = one.over and '1' or '0'
  end
  return table.concat(numbers, ' ')
end

-- Add to the charge of one limit for this request; return the data to undo all of it.
local function charge_more(one, charged, request, deadline, now)
  if one.what.window == 'now' then return charge(one, request, deadline, now) end
  local keep = one.what.window == 'minute' and WINDOW + 2 * SLOT or KEEP_MONTH
  add(charged[1], charged[3], one.cost, keep)
  return {charged[1], charged[2], charged[3], number(tonumber(charged[4]) + one.cost)}
end

-- Requests wait in the queue that workers read, up to QUEUE_LENGTH of them. Further ones wait in one list
-- for each department, so that no department's backlog delays the others. The next request comes from the
-- department with the smallest virtual time, which grows by 1/weight with each of its requests
-- (start-time fair queueing). Processes whose requests wait call `advance` several times a second; once no
-- process does, the lists expire after WAITING_FOR ms.
local QUEUE_LENGTH, WAITING_FOR = 32, 120000

-- Names of: virtual times of the departments that wait; virtual times of those that do not, weights
-- ('w:<department>'), the time of the last request ('now') and the number of requests ('length'); a list.
local function times_of(queue) return PREFIX .. 'waiting:' .. queue end
local function turns_of(queue) return PREFIX .. 'turns:' .. queue end
local function list_of(queue, department) return PREFIX .. 'waiting:' .. queue .. ':' .. department end

-- Move waiting requests to the queue until it has QUEUE_LENGTH of them. Return the number that still wait.
local function advance(queue)
  local times, turns = times_of(queue), turns_of(queue)
  local room = QUEUE_LENGTH - redis.call('LLEN', queue)
  while room > 0 do
    local first = redis.call('ZRANGE', times, 0, 0, 'WITHSCORES')
    local department = first[1]
    if not department then
      redis.call('DEL', turns)
      return 0
    end
    local list = list_of(queue, department)
    local message = redis.call('RPOP', list)
    local at = tonumber(first[2])
    if message then
      redis.call('LPUSH', queue, message)
      redis.call('HINCRBY', turns, 'length', -1)
      redis.call('HSET', turns, 'now', first[2])
      at = at + 1 / tonumber(redis.call('HGET', turns, 'w:' .. department) or '1')
      room = room - 1
    end
    local text = string.format('%.9f', at)
    if redis.call('LLEN', list) > 0 then
      redis.call('ZADD', times, text, department)
    else
      redis.call('ZREM', times, department)
      redis.call('HSET', turns, 't:' .. department, text)
    end
  end
  for _, department in ipairs(redis.call('ZRANGE', times, 0, -1)) do
    redis.call('PEXPIRE', list_of(queue, department), WAITING_FOR)
  end
  redis.call('PEXPIRE', times, WAITING_FOR)
  redis.call('PEXPIRE', turns, WAITING_FOR)
  return tonumber(redis.call('HGET', turns, 'length') or '0')
end

-- Return whether a department may not add a request to the `total` that wait: there is no room, and it
-- has its share. A department that waits alone has all room. Departments may exceed the maximum together,
-- so that a full backlog of one leaves room for others, but not by more than the maximum.
local function is_full(queue, department, weight, most, total)
  if total < most then return false end
  if total >= 2 * most or most == 0 then return true end
  local others = 0
  for _, name in ipairs(redis.call('ZRANGE', times_of(queue), 0, -1)) do
    if name ~= department then
      others = others + tonumber(redis.call('HGET', turns_of(queue), 'w:' .. name) or '1')
    end
  end
  local own = redis.call('LLEN', list_of(queue, department))
  return others == 0 or own >= most * weight / (weight + others)
end

-- Let a request wait in the list of its department.
local function wait_in_line(queue, message, department, weight)
  local times, turns, list = times_of(queue), turns_of(queue), list_of(queue, department)
  if redis.call('LPUSH', list, message) == 1 then
    local known = redis.call('HMGET', turns, 'now', 't:' .. department)
    local at = math.max(tonumber(known[1] or '0'), tonumber(known[2] or '0'))
    redis.call('ZADD', times, string.format('%.9f', at), department)
  end
  redis.call('HSET', turns, 'w:' .. department, number(weight))
  redis.call('HINCRBY', turns, 'length', 1)
end

-- Send a request's message, unless this is a dry run or there is no message yet. Without a `department`,
-- the queue has one kind of requests, and they do not wait elsewhere. Return nil or an error (-2: full,
-- -3: the key is not a queue), and the number of requests that wait in lists.
local function enqueue(queue, message, most, dry_run, department, weight)
  local length = redis.pcall('LLEN', queue)
  if type(length) ~= 'number' then return -3 end
  local waiting = 0
  if department ~= '' and (length >= QUEUE_LENGTH or redis.call('EXISTS', times_of(queue)) == 1) then
    waiting = tonumber(redis.call('HGET', turns_of(queue), 'length') or '0')
    if is_full(queue, department, weight, most, length + waiting) then return -2 end
  elseif length >= most then
    return -2
  end
  if dry_run or message == '' then return nil, waiting end
  if department ~= '' and (length >= QUEUE_LENGTH or waiting > 0) then
    wait_in_line(queue, message, department, weight)
    return nil, advance(queue)
  end
  if type(redis.pcall('LPUSH', queue, message)) ~= 'number' then return -3 end
  return nil, 0
end

-- advance: ARGV = "advance", queue. Answers the number of requests that still wait in lists.
local function advance_queue() return advance(ARGV[2]) end

-- requeue: ARGV = "requeue", queue, message, department, weight, for a request that was sent before.
--   Answers as advance, or -3.
local function requeue()
  local refused, waiting = enqueue(ARGV[2], ARGV[3], math.huge, false, ARGV[4], tonumber(ARGV[5]))
  return refused or waiting
end

-- reserve: ARGV = "reserve", request id, lifetime in ms, unit, number of units, money, device ms, usage
--   entry or "", queue or "", message, maximum length of the queue, department or "", its weight, then
--   the limits. All limits must have room, or be shadows; then the message goes to its queue, all limits
--   are charged, and the entry is kept until the request is settled. Answers one text, which is fast to
--   parse: the index of the limit that stopped it, 0 for none, -1 for "not ready" or an error of
--   `enqueue`; the wait in ms or -1 for never, or for a message that was sent the number of requests that
--   wait in lists; the time; then for each limit the remainder, ms until it grows, and 1 if it had no room.
--   With `more`, the amounts are added to the request's earlier reservation.
local function reserve(dry_run, more)
  local request, now = ARGV[2], now_ms()
  local name = PREFIX .. 'reservation:' .. request
  local deadline, dates = now + tonumber(ARGV[3]), calendar(now)
  local costs = {requests = more and 0 or 1, money = tonumber(ARGV[6]), device = tonumber(ARGV[7])}
  costs[ARGV[4]] = tonumber(ARGV[5])
  give_back_expired(now, RECLAIMED_AT_ONCE)
  local limits, missing = read_limits(14, costs, now, dates)
  local before = more and #limits > 0 and redis.call('GET', name)
  if missing or (more and #limits > 0 and not before) then return '-1 0 ' .. number(now) end
  local stopped, wait = stopping(limits, now)
  if stopped > 0 then
    count_stop(dates, limits[stopped])
    return answer(limits, stopped, wait, now)
  end
  local waiting = 0
  if ARGV[9] ~= '' then
    -- Before any charge, so that a request that cannot run costs nothing.
    local refused
    refused, waiting = enqueue(ARGV[9], ARGV[10], tonumber(ARGV[11]), dry_run, ARGV[12], tonumber(ARGV[13]))
    if refused then return number(refused) .. ' 0 ' .. number(now) end
  end
  if dry_run then return answer(limits, 0, 0, now) end
  if ARGV[8] ~= '' then
    redis.call('HSET', ADMITTED, request, ARGV[8])
    redis.call('ZADD', ADMITTED_UNTIL, number(deadline), request)
  end
  if #limits == 0 then return answer(limits, 0, waiting, now) end
  local charged = before and cjson.decode(before) or {}
  for i, one in ipairs(limits) do
    if one.over then count_stop(dates, one) end
    if before then
      charged[i] = charge_more(one, charged[i], request, deadline, now)
    else
      charged[i] = charge(one, request, deadline, now)
    end
    one.left = one.left - one.cost
    if one.state.reset == 0 then one.state.reset = WINDOW end
  end
  -- Expires with the counters, in case it is never released.
  redis.call('SET', name, cjson.encode(charged), 'PX', number(deadline - now + KEEP_MONTH))
  redis.call('ZADD', DEADLINES, number(deadline), request)
  return answer(limits, 0, waiting, now)
end

-- check_room: ARGV as for reserve. Answers the same, but sends and charges nothing.
local function check_room() return reserve(true) end

-- reserve_more: ARGV as for reserve, for a request that has a reservation under the same limits and is
--   sent now. Answers the same; also -1 if its reservation is gone.
local function reserve_more() return reserve(false, true) end

-- hold: ARGV = "hold", money, device ms, number of subjects, the subjects, then the limits.
--   As reserve, but for jobs: stored in the database, released only by settle, and counted on every
--   subject. Per-minute limits do not apply.
local function hold()
  local now = now_ms()
  local dates, subjects = calendar(now), tonumber(ARGV[4])
  local costs = {requests = 0, money = tonumber(ARGV[2]), device = tonumber(ARGV[3])}
  local limits, missing = read_limits(5 + subjects, costs, now, dates)
  if missing then return '-1 0 ' .. number(now) end
  local stopped, wait = stopping(limits, now)
  if stopped > 0 then
    count_stop(dates, limits[stopped])
    return answer(limits, stopped, wait, now)
  end
  for _, one in ipairs(limits) do
    if one.over then count_stop(dates, one) end
  end
  for i = 5, 4 + subjects do
    local key = budget_key('month', dates, ARGV[i])
    add(key, 'money_held', costs.money, KEEP_MONTH)
    add(key, 'device_held', costs.device, KEEP_MONTH)
  end
  return answer(limits, 0, 0, now)
end

-- lower: ARGV = "lower", money, device ms, the time in ms since which they are held, the subjects.
--   Releases a part of the held amounts.
local function lower()
  local dates = calendar(tonumber(ARGV[4]))
  for i = 5, #ARGV do
    local key = budget_key('month', dates, ARGV[i])
    add(key, 'money_held', -tonumber(ARGV[2]), KEEP_MONTH)
    add(key, 'device_held', -tonumber(ARGV[3]), KEEP_MONTH)
  end
  return 1
end

local function forget(request)
  if redis.call('HDEL', ADMITTED, request) == 1 then redis.call('ZREM', ADMITTED_UNTIL, request) end
end

-- settle: ARGV = "settle", request id, ran (1: it is a use), unit, number of units, money, device ms,
--   the time of the charge in ms, usage stream, usage entry or "", held money, held device ms, then the
--   subjects of the use.
--   Releases the reservation, counts the use, and adds the entry to the stream. Answers 1 the first time.
local function settle()
  local request, ran = ARGV[2], ARGV[3] == '1'
  forget(request)
  local unit, units = ARGV[4], tonumber(ARGV[5])
  local money, device = tonumber(ARGV[6]), tonumber(ARGV[7])
  local held_money, held_device = tonumber(ARGV[11]), tonumber(ARGV[12])
  if ran or held_money > 0 or held_device > 0 then
    local settled = PREFIX .. 'settled:' .. request
    -- The end of a hold is sent again until it is in the ledger, which may take long.
    local keep = (held_money > 0 or held_device > 0) and KEEP_MONTH or SETTLED_FOR
    if not redis.call('SET', settled, '1', 'NX', 'PX', keep) then return 0 end
  end
  if ARGV[10] ~= '' then redis.call('XADD', ARGV[9], '*', 'entry', ARGV[10]) end
  local reserved = release(request, units, false)
  local dates = calendar(tonumber(ARGV[8]))
  for i = 13, #ARGV do
    local month = budget_key('month', dates, ARGV[i])
    if ran then
      add(budget_key('day', dates, ARGV[i]), unit, units, KEEP_DAY)
      add(month, unit, units, KEEP_MONTH)
      add(month, 'money', money, KEEP_MONTH)
      add(month, 'device', device, KEEP_MONTH)
    end
    add(month, 'money_held', -held_money, KEEP_MONTH)
    add(month, 'device_held', -held_device, KEEP_MONTH)
  end
  return (ran or reserved or held_money > 0 or held_device > 0) and 1 or 0
end

-- read: ARGV = "read", then subject and kind of each limit. Answers ready (1 or 0), the time, and for
--   each limit: used, reserved, ms until more is left, and the number of requests it stopped today.
local function read()
  local now = now_ms()
  local dates = calendar(now)
  local numbers = {number(redis.call('EXISTS', READY)), number(now)}
  for i = 2, #ARGV, 2 do
    local state = read_limit(ARGV[i + 1], kind_of(ARGV[i + 1]), ARGV[i], now, dates)
    local stops = redis.call('HGET', PREFIX .. 'stops:' .. dates.day, ARGV[i + 1] .. '|' .. ARGV[i])
    numbers[#numbers + 1] = number(state.used)
    numbers[#numbers + 1] = number(state.reserved)
    numbers[#numbers + 1] = number(state.reset)
    numbers[#numbers + 1] = stops or '0'
  end
  return table.concat(numbers, ' ')
end

-- unsettled: ARGV = "unsettled", maximum number. Answers ID and entry of each request that was not
--   settled in time, in one list.
local function unsettled()
  local due = redis.call('ZRANGEBYSCORE', ADMITTED_UNTIL, '-inf', number(now_ms()), 'LIMIT', 0, tonumber(ARGV[2]))
  local found = {}
  for _, request in ipairs(due) do
    found[#found + 1] = request
    found[#found + 1] = redis.call('HGET', ADMITTED, request) or ''
  end
  return found
end

-- withdraw: ARGV = "withdraw", request id, counts (1: towards requests per minute), for a request that
--   never ran: releases everything else and deletes the entry.
local function withdraw()
  redis.call('HDEL', ADMITTED, ARGV[2])
  redis.call('ZREM', ADMITTED_UNTIL, ARGV[2])
  return release(ARGV[2], 0, ARGV[3] ~= '1') and 1 or 0
end

-- reclaim: ARGV = "reclaim", maximum number. Answers the number of released reservations.
local function reclaim() return give_back_expired(now_ms(), tonumber(ARGV[2])) end

local OPERATIONS = {
  reserve = reserve, check_room = check_room, reserve_more = reserve_more, hold = hold, lower = lower, settle = settle, read = read, reclaim = reclaim,
  unsettled = unsettled, withdraw = withdraw, advance = advance_queue, requeue = requeue,
}
return OPERATIONS[ARGV[1]]()
