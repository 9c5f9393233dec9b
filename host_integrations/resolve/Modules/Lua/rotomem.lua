-- The engine seen from Lua: one job at a time through a folder. Lua 5.1 and LuaJIT, no dependencies, no Resolve.
--
--   local job = rotomem.start(settings, { ["do"] = "track", plate = ..., masks = {...}, out = ..., options = {...} })
--   while not job.ended do job:poll() rotomem.sleep(0.2) end
--
-- The folder holds request.json, events.jsonl, cancel (python/rotomem/host/client.py tells the words), what the engine
-- printed (log.txt), and `exit` when it is gone. Only the engine's path and the folder's go through a shell.

local M = { PROTOCOL = 1, START_S = 120 }

M.windows = package.config:sub(1, 1) == "\\"

-- JSON -----------------------------------------------------------------------------------------------------------

M.null = setmetatable({}, { __tostring = function() return "null" end })
M.empty_list = setmetatable({}, { list = true })

-- Bytes that are no UTF-8 become the code points by which Python names such bytes of a path.
local function json_text(text)
    local out, i = { '"' }, 1
    while i <= #text do
        local byte = text:byte(i)
        local size = byte < 0x80 and 1 or byte >= 0xF0 and byte < 0xF5 and 4 or byte >= 0xE0 and byte < 0xF0 and 3
            or byte >= 0xC2 and byte < 0xE0 and 2 or 0
        local whole = size > 0 and text:sub(i, i + size - 1) or ""
        local second = text:byte(i + 1) or 0
        if size == 1 then
            local short = byte == 34 and '\\"' or byte == 92 and "\\\\"
            out[#out + 1] = short or (byte < 32 or byte == 127) and ("\\u%04x"):format(byte) or whole
            i = i + 1
        elseif size > 1 and whole:match("^.[\128-\191]+$") and #whole == size
            and not (byte == 0xE0 and second < 0xA0) and not (byte == 0xED and second > 0x9F)
            and not (byte == 0xF0 and second < 0x90) and not (byte == 0xF4 and second > 0x8F) then
            out[#out + 1] = whole
            i = i + size
        else
            out[#out + 1] = ("\\udc%02x"):format(byte)
            i = i + 1
        end
    end
    out[#out + 1] = '"'
    return table.concat(out)
end

-- Tables with [1] are lists, others objects (empty_list is the empty list); null is JSON's.
function M.encode(value)
    local kind = type(value)
    if value == M.null then return "null" end
    if kind == "string" then return json_text(value) end
    if kind == "boolean" then return tostring(value) end
    if kind == "number" then
        if value ~= value or value == math.huge or value == -math.huge then error("no number: " .. tostring(value)) end
        return value % 1 == 0 and ("%.0f"):format(value) or ("%.17g"):format(value)
    end
    if kind ~= "table" then error("JSON has no " .. kind) end
    local parts = {}
    if value == M.empty_list or value[1] ~= nil then
        for i, one in ipairs(value) do parts[i] = M.encode(one) end
        return "[" .. table.concat(parts, ",") .. "]"
    end
    for name, one in pairs(value) do parts[#parts + 1] = json_text(tostring(name)) .. ":" .. M.encode(one) end
    table.sort(parts)
    return "{" .. table.concat(parts, ",") .. "}"
end

local function utf8(code)
    if code < 0x80 then return string.char(code) end
    if code < 0x800 then return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64) end
    local low = string.char(0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
    if code < 0x10000 then return string.char(0xE0 + math.floor(code / 4096)) .. low end
    return string.char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64) .. low
end

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function read_text(text, at)
    local out = {}
    while true do
        local plain, stop = text:match('^([^"\\]*)()', at)
        out[#out + 1], at = plain, stop
        local sign = text:sub(at, at)
        if sign == '"' then return table.concat(out), at + 1 end
        if sign ~= "\\" then error("a text without end") end
        local letter = text:sub(at + 1, at + 1)
        if letter == "u" then
            local code = tonumber(text:match("^%x%x%x%x", at + 2) or error("no code point"), 16)
            at = at + 6
            local low = code >= 0xD800 and code < 0xDC00 and text:match("^\\u([dD][c-fC-F]%x%x)", at)
            if low then
                code, at = 0x10000 + (code - 0xD800) * 1024 + tonumber(low, 16) - 0xDC00, at + 6
            end
            out[#out + 1] = code >= 0xDC80 and code <= 0xDCFF and string.char(code - 0xDC00) or utf8(code)
        else
            out[#out + 1], at = ESCAPES[letter] or error("no escape: " .. letter), at + 2
        end
    end
end

local read_value

local function read_members(text, at, close, member)
    at = text:match("^%s*()", at)
    if text:sub(at, at) == close then return at + 1 end
    while true do
        at = text:match("^%s*()", member(at))
        local sign = text:sub(at, at)
        if sign == close then return at + 1 end
        if sign ~= "," then error("no " .. close) end
        at = at + 1
    end
end

function read_value(text, at, depth)
    if depth > 100 then error("too deep") end
    at = text:match("^%s*()", at)
    local sign = text:sub(at, at)
    if sign == '"' then return read_text(text, at + 1) end
    if sign == "{" then
        local object = {}
        return object, read_members(text, at + 1, "}", function(here)
            local name, value
            name, here = read_text(text, text:match('^%s*"()', here) or error("no name"))
            value, here = read_value(text, text:match("^%s*:()", here) or error("no colon"), depth + 1)
            object[name] = value
            return here
        end)
    end
    if sign == "[" then
        local list = {}
        return list, read_members(text, at + 1, "]", function(here)
            list[#list + 1], here = read_value(text, here, depth + 1)
            return here
        end)
    end
    for word, value in pairs({ ["true"] = true, ["false"] = false, ["null"] = M.null }) do
        if text:sub(at, at + #word - 1) == word then return value, at + #word end
    end
    local digits, stop = text:match("^(%-?%d+%.?%d*[eE]?[+-]?%d*)()", at)
    return tonumber(digits) or error("no value"), stop
end

-- The value, or nil and what is wrong.
function M.decode(text)
    local ok, value, at = pcall(read_value, text, 1, 0)
    if not ok then return nil, tostring(value) end
    if not text:match("^%s*$", at) then return nil, "more than one value" end
    return value
end

-- Paths and shells -----------------------------------------------------------------------------------------------

-- One word of sh, or of cmd.exe; an error where it cannot be one.
function M.quote(text, windows)
    if windows == nil then windows = M.windows end
    if text:find("%z") or text:find("[\r\n]") then error("a path with a line break: " .. text, 0) end
    if not windows then return "'" .. text:gsub("'", "'\\''") .. "'" end
    if text:find('[%%"]') then
        error('cmd.exe would read % or " in the path ' .. text .. "; use another folder (rotomem_settings.lua)", 0)
    end
    return '"' .. text .. '"'
end

function M.join(...)
    return (table.concat({ ... }, "/"):gsub("([^/])//+", "%1/"))
end

-- Elsewhere a backslash may be part of a name.
function M.slashes(path)
    return M.windows and (path:gsub("\\", "/")) or path
end

function M.exists(path)
    local file = io.open(path, "rb")
    if file then file:close() end
    return file ~= nil
end

function M.read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read("*a")
    file:close()
    return text
end

function M.write(path, text)
    local file, why = io.open(path, "wb")
    if not file then error("cannot be written: " .. tostring(why), 0) end
    local ok = file:write(text)
    file:close()
    if not ok then error("cannot be written, is the disk full? " .. path, 0) end
end

local function run(command)
    local code = os.execute(command)
    return code == 0 or code == true
end

function M.make_folder(path)
    local made
    if M.windows then
        local native = path:gsub("/", "\\")
        made = run("if not exist " .. M.quote(native .. "\\.") .. " mkdir " .. M.quote(native))
    else
        made = run("mkdir -p -- " .. M.quote(path))
    end
    if not made then error("the folder cannot be made: " .. path .. "; choose another in rotomem_settings.lua", 0) end
    return path
end

-- Names in a folder, sorted; {} where there is none.
function M.list(folder)
    local command = M.windows and "dir /b /a-d " .. M.quote((folder:gsub("/", "\\"))) .. " 2>nul"
        or "ls -1 -- " .. M.quote(folder) .. " 2>/dev/null"
    local names, pipe = {}, io.popen(command)
    for name in pipe:lines() do names[#names + 1] = (name:gsub("\r$", "")) end
    pipe:close()
    table.sort(names)
    return names
end

function M.sleep(seconds)
    local bmd = rawget(_G, "bmd")
    if bmd and bmd.wait then return bmd.wait(seconds) end
    run(M.windows and "ping -n 2 127.0.0.1 >nul" or ("sleep %.2f"):format(seconds))
end

local function home()
    return M.slashes(os.getenv(M.windows and "USERPROFILE" or "HOME") or error("there is no home folder", 0))
end

-- What a clip's keys, mattes and jobs lie in: FOLDER/project/clip.
function M.clip_folder(settings, project, clip)
    local function part(name) return (name:gsub('[%c/\\:*?"<>|%%]', "_"):gsub("^%.", "_"):gsub("[%. ]+$", "")) end
    return M.join(settings.folder or M.join(home(), "rotomem"), part(project), part(clip))
end

-- rotomem_settings.lua (the artist's: engine, folder, options) over rotomem_engine.lua (written by the installation).
function M.settings()
    local settings = { options = {} }
    for _, name in ipairs({ "rotomem_engine", "rotomem_settings" }) do
        package.loaded[name] = nil
        local ok, more = pcall(require, name)
        if ok and type(more) == "table" then
            for k, v in pairs(more) do settings[k] = v end
        elseif not ok and not tostring(more):find("module '" .. name .. "' not found", 1, true) then
            error(name .. ".lua cannot be read: " .. tostring(more), 0)
        end
    end
    local set = os.getenv("ROTOMEM_PYTHON")
    if set and set ~= "" then settings.engine = set end
    return settings
end

-- The engine's command, quoted; an error that tells the remedy.
function M.engine(settings)
    local path = settings.engine
    if not path or path == "" then
        local pipe = io.popen(M.windows and "where rotomem 2>nul" or "command -v rotomem")
        path = pipe:read("*l")
        pipe:close()
        if not path or path == "" then
            error("rotomem was not found: choose the Python that it is installed in, by running "
                .. "`rotomem hosts install resolve` with it or as ROTOMEM_PYTHON", 0)
        end
    end
    if not M.exists(path) then
        error("the engine " .. path .. " is not there: choose the Python that rotomem is installed in, by running "
            .. "`rotomem hosts install resolve` with it or as ROTOMEM_PYTHON", 0)
    end
    local name = M.slashes(path):match("([^/]+)$"):lower():gsub("%.exe$", "")
    return M.quote(path) .. (name == "rotomem" and "" or " -I -m rotomem")
end

local function process_id()
    local ok, ffi = pcall(require, "ffi")
    if not ok then return nil end
    local name = M.windows and "GetCurrentProcessId" or "getpid"
    pcall(ffi.cdef, ("int %s(void);"):format(name))
    local got, id = pcall(function() return ffi.C[name]() end)
    return got and tonumber(id) or nil
end

-- Another Python must not load the host's libraries.
local UNWANTED = { "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "LD_LIBRARY_PATH", "LD_PRELOAD" }

-- The line that starts the engine and comes back at once. When the engine is gone there is FOLDER/exit.
function M.command(engine, folder, windows)
    if windows == nil then windows = M.windows end
    local function q(name) return M.quote(name == "" and folder or folder .. "/" .. name, windows) end
    if windows then
        local clean = {}
        for i, name in ipairs(UNWANTED) do clean[i] = ('set "%s=" & '):format(name) end
        return ('%sstart "" /b cmd /s /c "%s worker --job %s > %s 2>&1 & echo gone > %s"'):format(
            table.concat(clean), engine, q(""), q("log.txt"), q("exit"))
    end
    return ("( env -u %s %s worker --job %s > %s 2>&1 < /dev/null; echo $? > %s ) > /dev/null 2>&1 &"):format(
        table.concat(UNWANTED, " -u "), engine, q(""), q("log.txt"), q("exit"))
end

-- Jobs -----------------------------------------------------------------------------------------------------------

local Job = {}
Job.__index = Job

local count = 0

-- Give the engine a request. `folder` is where its job folder is made. Raises what is wrong, as a text for artists.
function M.start(settings, request, folder)
    local engine = M.engine(settings)
    count = count + 1
    local job = setmetatable({ state = "waiting", ended = false, at = 0, began = os.time() }, Job)
    job.folder = M.make_folder(M.join(folder, ("job-%s-%d-%d"):format(os.date("%Y%m%d-%H%M%S"), process_id() or 0, count)))
    request.host_pid = process_id()
    M.write(M.join(job.folder, "request.part"), M.encode(request))
    assert(os.rename(M.join(job.folder, "request.part"), M.join(job.folder, "request.json")))
    M.write(M.join(folder, "latest.txt"), job.folder)
    if not run(M.command(engine, job.folder)) then error("the shell did not start the engine: " .. engine, 0) end
    return job
end

-- Ask the job to stop; it ends when the frame begun is whole.
function Job:cancel()
    M.write(M.join(self.folder, "cancel"), "")
end

-- What the engine said since: a list of events. Lines that are none are passed over.
function Job:poll()
    -- Before the events are read: what was said before the end is then read too.
    local exit = M.read(M.join(self.folder, "exit"))
    local events = {}
    local file = io.open(M.join(self.folder, "events.jsonl"), "rb")
    if file then
        file:seek("set", self.at)
        local whole = (file:read("*a") or ""):match("^(.*\n)")
        file:close()
        for line in (whole or ""):gmatch("([^\n]*)\n") do
            local event = M.decode(line)
            if type(event) == "table" and type(event.event) == "string" and not self.ended then
                events[#events + 1] = event
                self:take(event)
            end
        end
        self.at = self.at + #(whole or "")
    end
    if self.ended then return events end
    if exit then
        self:fail(("the engine has ended (exit code %s): %s; start again, mattes made so far stay"):format(
            exit:gsub("%s+$", ""), self:last_words()))
    elseif not self.version and os.time() - self.began > M.START_S then
        self:cancel()
        self:fail(("the engine has not answered within %d s: %s"):format(M.START_S, self:last_words()))
    end
    return events
end

function Job:take(event)
    local kind = event.event
    if kind == "hello" then
        self.version = tostring(event.version)
        if event.protocol ~= M.PROTOCOL then
            self:cancel()
            local newer = (tonumber(event.protocol) or 0) > M.PROTOCOL
            self:fail(("the engine (rotomem %s) speaks protocol %s, these scripts speak %d: update %s"):format(
                self.version, tostring(event.protocol), M.PROTOCOL,
                newer and "the plug-in (`rotomem hosts install resolve`)" or "rotomem"))
        end
    elseif kind == "progress" and tonumber(event.done) and tonumber(event.total) then
        self.state, self.last = "running", event
    elseif kind == "started" then
        self.state = "running"
    elseif kind == "done" or kind == "cancelled" then
        self.state, self.ended, self.result = kind, true, event
    elseif kind == "error" then
        local facts = {}
        for name, value in pairs(type(event.context) == "table" and event.context or {}) do
            facts[#facts + 1] = name .. "=" .. tostring(value)
        end
        table.sort(facts)
        local known = facts[1] and " [" .. table.concat(facts, " ") .. "]" or ""
        local remedy = type(event.remedy) == "string" and "; " .. event.remedy or ""
        self.result = event
        self:fail(tostring(event.message) .. known .. remedy)
    end
end

function Job:fail(why)
    self.state, self.ended, self.problem = "error", true, why
end

-- A line for a panel.
function Job:message()
    if self.problem then return self.problem end
    if self.ended or not self.last then
        return ({ waiting = "waits for the engine", running = "looks at plate and keys" })[self.state] or self.state
    end
    local fps = tonumber(self.last.fps) or 0
    return ("frame %s (%d/%d)%s"):format(tostring(self.last.frame), self.last.done, self.last.total,
        fps > 0 and (", %.1f frames a second"):format(fps) or "")
end

function Job:last_words()
    local said = (M.read(M.join(self.folder, "log.txt")) or ""):gsub("%s+$", "")
    return said == "" and "it said nothing (" .. self.folder .. ")" or said:sub(-600)
end

-- Poll to the end. show(text, share) is told of every change, share in 0..1; what it answers, true, cancels.
function M.wait(job, show)
    local said, asked
    while not job.ended do
        job:poll()
        local text = job:message()
        local share = job.last and job.last.done / math.max(job.last.total, 1) or 0
        if show(text, share, text ~= said) and not asked then
            asked = true
            job:cancel()
        end
        said = text
        if not job.ended then M.sleep(0.1) end
    end
    return job
end

return M
