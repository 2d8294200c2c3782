-- Health of an ApiToken, from its conditions alone. They follow kstatus: Stalled says that it cannot get better by itself,
-- Reconciling that work is under way, Ready that what is declared is in force. Lua has no clock here and needs none.
local health = { status = "Progressing", message = "Waiting for the controller" }

if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the controller to see the latest change"
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end

local function is_true(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

if is_true("Stalled") then
  health.message = conditions.Stalled.message
  if conditions.Stalled.reason == "Suspended" then
    health.status = "Suspended"
  else
    health.status = "Degraded"
  end
elseif is_true("Reconciling") then
  health.message = conditions.Reconciling.message
elseif is_true("Ready") then
  health.status = "Healthy"
  health.message = conditions.Ready.message
elseif conditions.Ready ~= nil then
  health.message = conditions.Ready.message
end
return health
